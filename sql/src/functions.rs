//! SQL functions and operators that DataFusion lacks or defines differently: `arithmetic` and
//! `numeric`, `arrays`, `like`, `bounded` (results that could take all memory), `casts` and
//! `datetime`, `collected` (values of aggregates), `comparable` (equality), `quantified` (ANY and
//! ALL), `exact` (aggregates of numbers), `json`, `jsonb`, `quote`, `encoding`, `round`, and dates
//! and times (`to_char`, `from_char`, `date_part`, `zone`).
//!
//! The result of a function depends on its arguments alone. The frontend owns the functions of
//! sessions and system catalogs, and passes them to the planner.

mod arithmetic;
mod arrays;
mod assign;
mod bounded;
mod casts;
mod choose;
mod collected;
mod comparable;
mod date_part;
mod datetime;
mod encoding;
mod exact;
mod extreme;
mod from_char;
mod input;
mod json;
mod jsonb;
mod like;
mod moment;
mod numeric;
mod quantified;
mod quote;
mod round;
mod rows;
mod sets;
mod size;
mod template;
mod text;
mod to_char;
mod type_of;
mod vectors;
mod zone;

use datafusion::logical_expr::ScalarUDF;

pub(crate) use arithmetic::CheckedArithmetic;
pub(crate) use arrays::{ARRAY_OR_EMPTY, ArrayOperators};
pub(crate) use assign::{ASSIGN, Assigned};
pub(crate) use bounded::bounded;
#[cfg(test)]
pub(crate) use casts::from_text as read_text;
pub(crate) use casts::{Casts, Literals};
pub use casts::{bytea, scalar_from_text};
pub(crate) use choose::{CASES, KEPT, as_case, choosing, kept_jsonb};
pub(crate) use collected::{JSONB_ARRAY, JSONB_OBJECT, MODE, PERCENTILE_CONT, PERCENTILE_DISC, TO_JSONB};
pub(crate) use comparable::{KEY, is_comparable, key};
pub use comparable::{comparable, has_equals};
pub(crate) use date_part::Extract;
pub use encoding::is_utf8;
pub(crate) use exact::{exact, exact_sum};
pub(crate) use extreme::{extreme_aggregate, extreme_function};
pub use input::column_from_text;
pub(crate) use jsonb::{CAST as JSONB_CAST, Operators as JsonbOperators, beside_jsonb, yields_jsonb};
pub(crate) use like::LIKE_ESCAPE;
pub(crate) use numeric::{decimal_operation, quotient};
pub(crate) use quantified::function_of;
pub(crate) use round::round_to_even;
pub(crate) use rows::{AT_PRECISION, all_fields};
pub(crate) use sets::{MEMBER_TEXTS, MEMBERS, NUMBERS, ORDINALS, list_holds_jsonb, set_function};
pub(crate) use text::ARRAY_TO_STRING;
pub(crate) use vectors::{EXPANDED, SUBSCRIPTS, Vectors};

/// The functions that are the same for every planner.
pub(crate) fn common() -> Vec<ScalarUDF> {
    let single = [
        ScalarUDF::from(size::SizePretty::new()),
        assign::function(),
        json::function(),
        like::function(),
        ScalarUDF::from(to_char::ToChar::new()),
        ScalarUDF::from(from_char::FromChar::to_date()),
        ScalarUDF::from(from_char::FromChar::to_timestamp()),
        ScalarUDF::from(date_part::DatePart::new(false)),
        ScalarUDF::from(zone::AtTimeZone::new()),
        ScalarUDF::from(type_of::TypeOf::new()),
    ];
    arrays::functions()
        .into_iter()
        .chain(jsonb::functions())
        .chain(quantified::functions())
        .chain(quote::functions())
        .chain(encoding::functions())
        .chain(choose::functions())
        .chain(collected::functions())
        .chain(rows::functions())
        .chain(sets::functions())
        .chain(text::functions())
        .chain(vectors::functions())
        .chain(single)
        .collect()
}

/// The functions behind operators and `extract`. No statement names them, but stored plans do.
pub(crate) fn of_operators() -> Vec<ScalarUDF> {
    let extract = ScalarUDF::from(date_part::DatePart::new(true));
    let operators = arrays::of_operators().into_iter().chain(jsonb::of_operators()).chain(rows::of_operators());
    operators.chain([extract, comparable::key_function()]).collect()
}
