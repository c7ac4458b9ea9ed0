//! Rewrites logical plans to PostgreSQL's semantics once names are resolved.
//!
//! A plan passes the rules in this order: [`choices`] (CASE), [`booleans`] (texts beside booleans),
//! [`multisets`] (INTERSECT ALL, EXCEPT ALL), [`ordered`] (aggregates over sorted rows), [`types`]
//! (of numbers and times), [`marks`] (values that are printed as names), [`equality`] (of values)
//! with [`shown`] (groups), [`subqueries`] (as joins).

mod booleans;
mod choices;
mod equality;
mod marks;
mod multisets;
mod ordered;
mod shown;
mod subqueries;
mod types;

pub(crate) use booleans::Booleans;
pub(crate) use choices::Choices;
pub(crate) use equality::{Equality, compares};
pub(crate) use marks::{Aggregated, Printed, Sent, printers};
pub(crate) use multisets::Multisets;
pub(crate) use ordered::Ordered;
pub(crate) use subqueries::Subqueries;
pub(crate) use types::{Averages, ExactSums, Types};
