//! The tables that a statement names.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use sqlparser::ast::{Ident, Query, Statement, TableFactor, Visit, Visitor};

use crate::parser::{fold, identifiers};

/// Every table that a query names, with the identifiers of its name. Calls of table functions are
/// left out.
pub fn tables(statement: &Statement) -> Vec<Vec<Ident>> {
    struct Tables(Vec<Vec<Ident>>);
    impl Visitor for Tables {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, args: None, .. } = factor
                && let Some(parts) = identifiers(name)
            {
                self.0.push(parts.into_iter().cloned().collect());
            }
            ControlFlow::Continue(())
        }
    }
    let mut tables = Tables(Vec::new());
    let _finished = Visit::visit(statement, &mut tables);
    tables.0
}

/// The parts of the names of the tables that a query reads, each name once. Names that a WITH
/// clause gives are left out.
pub fn table_names(statement: &Statement) -> BTreeSet<Vec<String>> {
    let with = with_names(statement);
    let tables = tables(statement).into_iter().map(|parts| parts.iter().map(fold).collect::<Vec<String>>());
    tables.filter(|parts| !matches!(parts.as_slice(), [name] if with.contains(name))).collect()
}

/// The names that WITH clauses give, at any depth.
pub fn with_names(statement: &Statement) -> HashSet<String> {
    struct Names(HashSet<String>);
    impl Visitor for Names {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let tables = query.with.iter().flat_map(|with| &with.cte_tables);
            self.0.extend(tables.map(|table| fold(&table.alias.name)));
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(HashSet::new());
    let _finished = Visit::visit(statement, &mut names);
    names.0
}
