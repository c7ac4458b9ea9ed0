//! Refuses clauses that DataFusion parses and then ignores, or reads differently from PostgreSQL.
//!
//! Owns the rule that a query is answered as by PostgreSQL or refused. The walk destructures every
//! node of the syntax tree field by field, without `..` where a field could be forgotten. A new
//! version of the parser with more clauses therefore does not compile until somebody has decided
//! about them.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Distinct, DuplicateTreatment, Expr, Fetch, Function, FunctionArg, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Join, JoinConstraint, LimitClause, Offset, OrderBy, OrderByKind, Query, Select,
    SelectFlavor, SelectItem, SetExpr, SetQuantifier, Statement, TableAlias, TableFactor, TableFunctionArgs,
    TableWithJoins, Value, Visit, Visitor, WindowType,
};

use super::Known;
use super::joins::{self, Kind};
use crate::error::{Error, sqlstate};
use crate::parser::{fold, identifiers};

/// # Errors
/// `0A000` for a clause that would be ignored, `42601` for one that PostgreSQL does not have,
/// `42809` for one that the kind of function does not take.
pub(super) fn check(statement: &Statement, known: &Known<'_>) -> Result<(), Error> {
    match statement.visit(&mut Refused { known }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Refused<'a> {
    known: &'a Known<'a>,
}

impl Visitor for Refused<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        flow(in_query(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        flow(in_select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        flow(in_table_factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        flow(match expr {
            Expr::Function(function) => in_function(function, self.known),
            Expr::Value(value) => in_value(&value.value),
            _ => Ok(()),
        })
    }
}

fn flow(result: Result<(), Error>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

/// Refuses a clause that is there but not supported.
fn unsupported(is_there: bool, clause: &str, hint: &str) -> Result<(), Error> {
    if !is_there {
        return Ok(());
    }
    Err(Error::unsupported(format!("{clause} is not supported yet")).with_hint(hint))
}

/// Refuses a clause that PostgreSQL does not have.
fn foreign(is_there: bool, clause: &str) -> Result<(), Error> {
    if !is_there {
        return Ok(());
    }
    Err(Error::user(sqlstate::SYNTAX_ERROR, format!("{clause} is not part of this SQL")))
}

fn in_query(query: &Query) -> Result<(), Error> {
    let Query { with, body, order_by, limit_clause, fetch, locks, for_clause, settings, format_clause, pipe_operators } =
        query;
    for table in with.iter().flat_map(|with| &with.cte_tables) {
        foreign(table.from.is_some(), "FROM after a WITH query")?;
        in_alias(&table.alias)?;
    }
    in_body(body)?;
    match order_by {
        Some(OrderBy { kind: OrderByKind::All(_), .. }) => foreign(true, "ORDER BY ALL")?,
        Some(OrderBy { kind: OrderByKind::Expressions(keys), interpolate }) => {
            foreign(interpolate.is_some(), "INTERPOLATE")?;
            foreign(keys.iter().any(|key| key.with_fill.is_some()), "WITH FILL")?;
        }
        None => {}
    }
    match limit_clause {
        Some(LimitClause::LimitOffset { limit: _, offset: None | Some(Offset { value: _, rows: _ }), limit_by }) => {
            foreign(!limit_by.is_empty(), "LIMIT BY")?;
        }
        Some(LimitClause::OffsetCommaLimit { offset: _, limit: _ }) => foreign(true, "LIMIT with a comma")?,
        None => {}
    }
    if let Some(Fetch { with_ties, percent, quantity: _ }) = fetch {
        unsupported(*with_ties, "WITH TIES", "compare rank() over the same order with the number of rows")?;
        foreign(*percent, "FETCH … PERCENT")?;
    }
    unsupported(
        !locks.is_empty(),
        "FOR UPDATE and FOR SHARE",
        "leave it out: rows of a table change only by its stream",
    )?;
    foreign(for_clause.is_some(), "FOR XML, JSON or BROWSE")?;
    foreign(settings.is_some(), "SETTINGS")?;
    foreign(format_clause.is_some(), "FORMAT")?;
    foreign(!pipe_operators.is_empty(), "|>")
}

fn in_body(body: &SetExpr) -> Result<(), Error> {
    match body {
        SetExpr::SetOperation { left, op: _, set_quantifier, right } => {
            let by_name = matches!(
                set_quantifier,
                SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName
            );
            foreign(by_name, "BY NAME")?;
            in_body(left)?;
            in_body(right)
        }
        // Nested queries are visited separately. Other statements are refused elsewhere.
        _ => Ok(()),
    }
}

fn in_select(select: &Select) -> Result<(), Error> {
    let Select {
        select_token: _,
        // Hints are comments.
        optimizer_hints: _,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having: _,
        named_window: _,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    match distinct {
        None | Some(Distinct::All | Distinct::Distinct | Distinct::On(_)) => {}
    }
    foreign(select_modifiers.is_some(), "a modifier after SELECT")?;
    foreign(top.is_some(), "TOP")?;
    foreign(exclude.is_some(), "EXCLUDE")?;
    unsupported(into.is_some(), "SELECT INTO", "a materialized view keeps the result of a query")?;
    foreign(!lateral_views.is_empty(), "LATERAL VIEW")?;
    foreign(prewhere.is_some(), "PREWHERE")?;
    foreign(!connect_by.is_empty(), "CONNECT BY")?;
    foreign(
        !cluster_by.is_empty() || !distribute_by.is_empty() || !sort_by.is_empty(),
        "CLUSTER, DISTRIBUTE and SORT BY",
    )?;
    foreign(qualify.is_some(), "QUALIFY")?;
    foreign(value_table_mode.is_some(), "SELECT AS STRUCT or VALUE")?;
    foreign(*flavor != SelectFlavor::Standard, "FROM before SELECT")?;
    match group_by {
        GroupByExpr::All(_) => foreign(true, "GROUP BY ALL")?,
        GroupByExpr::Expressions(_, modifiers) => foreign(!modifiers.is_empty(), "WITH after GROUP BY")?,
    }
    for item in projection {
        foreign(matches!(item, SelectItem::ExprWithAliases { .. }), "an expression with several names")?;
    }
    from.iter().try_for_each(in_joins)
}

fn in_joins(tables: &TableWithJoins) -> Result<(), Error> {
    let TableWithJoins { relation: _, joins } = tables;
    for Join { relation: _, global, join_operator } in joins {
        foreign(*global, "GLOBAL JOIN")?;
        let (kind, constraint) = joins::kind(join_operator);
        match kind {
            Kind::Inner | Kind::Left | Kind::Right | Kind::Full => {
                let has_none = matches!(constraint, Some(JoinConstraint::None));
                foreign(has_none, "a JOIN without ON or USING").map_err(|error| error.with_hint("write CROSS JOIN"))?;
                // DataFusion takes the merged column from the left side, which may have no row
                // here.
                let merges = matches!(constraint, Some(JoinConstraint::Using(_) | JoinConstraint::Natural));
                let clause = "a RIGHT or FULL JOIN with USING or NATURAL";
                unsupported(merges && kind.keeps_right(), clause, "write ON, and coalesce() of both columns")?;
            }
            Kind::Cross => {
                foreign(!matches!(constraint, Some(JoinConstraint::None)), "a condition of CROSS JOIN")?;
            }
            Kind::Semi => {
                let refused = foreign(true, "SEMI and ANTI JOIN");
                refused.map_err(|error| error.with_hint("write WHERE EXISTS or NOT EXISTS"))?;
            }
            Kind::Foreign => foreign(true, "such a JOIN")?,
        }
    }
    Ok(())
}

fn in_table_factor(factor: &TableFactor) -> Result<(), Error> {
    const ORDINALITY: &str = "WITH ORDINALITY of such a function";
    match factor {
        TableFactor::Table {
            name: _,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            alias.as_ref().map_or(Ok(()), in_alias)?;
            if let Some(TableFunctionArgs { args: _, settings }) = args {
                foreign(settings.is_some(), "SETTINGS")?;
            }
            foreign(!with_hints.is_empty(), "WITH after a table")?;
            foreign(version.is_some(), "a version of a table")?;
            unsupported(*with_ordinality, ORDINALITY, "number the rows by row_number()")?;
            foreign(!partitions.is_empty(), "PARTITION after a table")?;
            foreign(json_path.is_some(), "a path after a table")?;
            unsupported(sample.is_some(), "TABLESAMPLE", "filter by random()")?;
            foreign(!index_hints.is_empty(), "an index after a table")
        }
        TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
            alias.as_ref().map_or(Ok(()), in_alias)?;
            unsupported(sample.is_some(), "TABLESAMPLE", "filter by random()")
        }
        TableFactor::Function { lateral: _, name: _, args: _, with_ordinality, alias } => {
            alias.as_ref().map_or(Ok(()), in_alias)?;
            unsupported(*with_ordinality, ORDINALITY, "number the rows by row_number()")
        }
        TableFactor::UNNEST { alias, array_exprs: _, with_offset, with_offset_alias, with_ordinality } => {
            alias.as_ref().map_or(Ok(()), in_alias)?;
            foreign(*with_offset || with_offset_alias.is_some(), "WITH OFFSET")?;
            unsupported(*with_ordinality, ORDINALITY, "number the rows by row_number()")
        }
        TableFactor::NestedJoin { table_with_joins, alias } => {
            alias.as_ref().map_or(Ok(()), in_alias)?;
            in_joins(table_with_joins)
        }
        TableFactor::TableFunction { .. }
        | TableFactor::JsonTable { .. }
        | TableFactor::OpenJsonTable { .. }
        | TableFactor::Pivot { .. }
        | TableFactor::Unpivot { .. }
        | TableFactor::MatchRecognize { .. }
        | TableFactor::XmlTable { .. }
        | TableFactor::SemanticView { .. } => unsupported(true, "such an item of FROM", "name a table or a query"),
    }
}

fn in_alias(alias: &TableAlias) -> Result<(), Error> {
    let TableAlias { explicit: _, name: _, columns, at } = alias;
    foreign(at.is_some(), "AT after a name")?;
    let typed = columns.iter().any(|column| column.data_type.is_some());
    unsupported(typed, "a list of columns with their types", "cast the columns in the SELECT list")
}

fn in_function(function: &Function, known: &Known<'_>) -> Result<(), Error> {
    let Function { name, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } = function;
    let Some(name) = identifiers(name).and_then(|parts| parts.last().map(|last| fold(last))) else {
        return Ok(());
    };
    foreign(!matches!(parameters, FunctionArguments::None), "a second list of arguments")?;
    let (mut is_distinct, mut is_ordered, mut treats_nulls) = (false, false, null_treatment.is_some());
    match args {
        FunctionArguments::None => {}
        FunctionArguments::Subquery(_) => {
            unsupported(true, &format!("{name} of a query"), "aggregate the query's column instead")?;
        }
        FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args, clauses }) => {
            is_distinct = matches!(duplicate_treatment, Some(DuplicateTreatment::Distinct));
            for clause in clauses {
                match clause {
                    FunctionArgumentClause::OrderBy(_) => is_ordered = true,
                    FunctionArgumentClause::IgnoreOrRespectNulls(_) => treats_nulls = true,
                    FunctionArgumentClause::Limit(_)
                    | FunctionArgumentClause::OnOverflow(_)
                    | FunctionArgumentClause::Having(_)
                    | FunctionArgumentClause::Separator(_)
                    | FunctionArgumentClause::JsonNullClause(_)
                    | FunctionArgumentClause::JsonReturningClause(_) => {
                        foreign(true, &format!("such a clause in the arguments of {name}"))?;
                    }
                }
            }
            let named = args.iter().any(|argument| matches!(argument, FunctionArg::ExprNamed { .. }));
            foreign(named, "an argument named by an expression")?;
        }
    }
    let is_approximate = matches!(name.as_str(), "array_dims");
    unsupported(is_approximate, &name, "use array_length()")?;
    unsupported(treats_nulls, "IGNORE NULLS or RESPECT NULLS", "filter the rows")?;
    let is_aggregate = (known.is_aggregate)(&name);
    let is_window = (known.is_window)(&name);
    if is_aggregate || is_window {
        if let Some(WindowType::WindowSpec(_) | WindowType::NamedWindow(_)) = over {
            unsupported(is_distinct, "DISTINCT in a window function", "remove the duplicates in a sub-query")?;
            unsupported(is_ordered, "ORDER BY in the arguments of a window function", "order in OVER")?;
            let filtered = filter.is_some() && !is_aggregate;
            return unsupported(filtered, "FILTER of a window function that is not an aggregate", "use CASE");
        }
        return Ok(());
    }
    if !(known.is_scalar)(&name) {
        // Later steps report a missing function better.
        return Ok(());
    }
    let wrong = [
        (over.is_some(), "OVER", "is not a window function nor an aggregate function"),
        (filter.is_some(), "FILTER", "is not an aggregate function"),
        (is_distinct, "DISTINCT", "is not an aggregate function"),
        (is_ordered, "ORDER BY", "is not an aggregate function"),
        (!within_group.is_empty(), "WITHIN GROUP", "is not an ordered-set aggregate"),
    ];
    match wrong.iter().find(|(is_there, ..)| *is_there) {
        Some((_, clause, reason)) => {
            Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, format!("{clause} specified, but {name} {reason}")))
        }
        None => Ok(()),
    }
}

fn in_value(value: &Value) -> Result<(), Error> {
    let is_bits = matches!(value, Value::HexStringLiteral(_) | Value::SingleQuotedByteStringLiteral(_));
    unsupported(is_bits, "a string of bits", "write bytes as '\\x…'::bytea")
}
