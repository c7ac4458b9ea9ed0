//! Joins as they are written: sqlparser has an operator for each spelling, and for those of other
//! dialects.

use sqlparser::ast::{JoinConstraint, JoinOperator};

/// The meaning of a join's operator, however it is spelled.
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
    /// True if rows of the left side stay without a match, beside NULLs.
    pub(super) fn keeps_left(self) -> bool {
        matches!(self, Kind::Left | Kind::Full)
    }

    /// True if rows of the right side stay without a match, beside NULLs.
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

/// The condition of a join, to be changed.
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
