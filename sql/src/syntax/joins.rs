//! Kinds of joins. sqlparser has an operator for each spelling of a join, and for the joins of
//! other dialects.

use sqlparser::ast::{JoinConstraint, JoinOperator};

/// The meaning of a join's operator, independent of its spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Inner,
    Left,
    Right,
    Full,
    Cross,
    /// SEMI and ANTI JOIN, which PostgreSQL writes as conditions.
    Semi,
    /// Joins of other dialects.
    Foreign,
}

impl Kind {
    /// True if left rows without a match are kept, with NULLs beside them.
    pub(super) fn keeps_left(self) -> bool {
        matches!(self, Kind::Left | Kind::Full)
    }

    /// True if right rows without a match are kept, with NULLs beside them.
    pub(super) fn keeps_right(self) -> bool {
        matches!(self, Kind::Right | Kind::Full)
    }
}

/// The kind of a join, and its condition if it may have one.
pub(super) fn kind(operator: &JoinOperator) -> (Kind, Option<&JoinConstraint>) {
    match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (Kind::Inner, Some(constraint)),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (Kind::Left, Some(constraint)),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (Kind::Right, Some(constraint)),
        JoinOperator::FullOuter(constraint) => (Kind::Full, Some(constraint)),
        JoinOperator::CrossJoin(constraint) => (Kind::Cross, Some(constraint)),
        JoinOperator::Semi(_)
        | JoinOperator::LeftSemi(_)
        | JoinOperator::RightSemi(_)
        | JoinOperator::Anti(_)
        | JoinOperator::LeftAnti(_)
        | JoinOperator::RightAnti(_) => (Kind::Semi, None),
        JoinOperator::CrossApply
        | JoinOperator::OuterApply
        | JoinOperator::AsOf { .. }
        | JoinOperator::StraightJoin(_)
        | JoinOperator::ArrayJoin
        | JoinOperator::LeftArrayJoin
        | JoinOperator::InnerArrayJoin => (Kind::Foreign, None),
    }
}

/// The condition of a join, for a change.
pub(super) fn constraint_mut(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}
