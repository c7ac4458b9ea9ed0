//! The tables that a statement names.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use sqlparser::ast::{Ident, Query, Statement, TableFactor, Visit, Visitor};

use crate::parser::{DATABASE, SCHEMA, fold, identifiers};

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

/// The names of the tables in the schema `public` that a query reads, each once.
pub fn table_names(statement: &Statement) -> BTreeSet<String> {
    let tables = tables(statement).into_iter().filter_map(|parts| {
        let folded: Vec<String> = parts.iter().map(fold).collect();
        match folded.as_slice() {
            [name] => Some(name.clone()),
            [schema, name] if schema == SCHEMA => Some(name.clone()),
            [database, schema, name] if database == DATABASE && schema == SCHEMA => Some(name.clone()),
            _ => None,
        }
    });
    let with = with_names(statement);
    tables.filter(|name| !with.contains(name)).collect()
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
