//! Puts other tables, or queries, in the places of the tables that a query names.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Ident, ObjectName, Statement, TableAlias, TableAliasColumnDef, TableFactor, VisitMut, VisitorMut,
};

use super::with_names;
use crate::keywords::quoted_identifier;
use crate::parser::{fold, identifiers};

/// The replacement of a table.
#[derive(Clone, Debug)]
pub enum Substitute {
    /// Another table. It keeps the name as its alias, so that other parts of the query find it.
    Table(Vec<String>),
    /// A query whose columns have these names.
    Query(Box<Statement>, Vec<String>),
}

/// Replaces the tables of a query for which `find` knows a replacement, given the parts of their
/// names. Names that a WITH clause gives stay.
pub fn substituted(statement: &Statement, find: &dyn Fn(&[String]) -> Option<Substitute>) -> Statement {
    struct Tables<'a> {
        find: &'a dyn Fn(&[String]) -> Option<Substitute>,
        with: HashSet<String>,
    }
    impl VisitorMut for Tables<'_> {
        type Break = ();

        fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            let TableFactor::Table { name, alias, args: None, .. } = factor else { return ControlFlow::Continue(()) };
            let Some(parts) = identifiers(name) else { return ControlFlow::Continue(()) };
            let folded: Vec<String> = parts.iter().map(|part| fold(part)).collect();
            if matches!(folded.as_slice(), [only] if self.with.contains(only)) {
                return ControlFlow::Continue(());
            }
            let named = || folded.last().map(|last| alias_of(last));
            match (self.find)(&folded) {
                None => {}
                Some(Substitute::Table(parts)) => {
                    *alias = alias.take().or_else(named);
                    *name = ObjectName::from(parts.iter().map(|part| quoted(part)).collect::<Vec<_>>());
                }
                Some(Substitute::Query(statement, columns)) => {
                    let Statement::Query(subquery) = *statement else { return ControlFlow::Continue(()) };
                    let mut alias = alias.take().or_else(named);
                    if let Some(alias) = &mut alias {
                        let rest = columns.iter().skip(alias.columns.len());
                        let rest = rest.map(|name| TableAliasColumnDef { name: quoted(name), data_type: None });
                        alias.columns.extend(rest.collect::<Vec<_>>());
                    }
                    *factor = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut changed = statement.clone();
    let with = with_names(statement);
    let _finished = VisitMut::visit(&mut changed, &mut Tables { find, with });
    changed
}

/// Puts the schemas that `find` knows before the names of tables that have none. They keep their
/// locations. `find` must not know names that a WITH clause gives.
pub fn in_schemas(statement: &Statement, find: &dyn Fn(&str) -> Option<String>) -> Statement {
    struct Names<'a>(&'a dyn Fn(&str) -> Option<String>);
    impl VisitorMut for Names<'_> {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, args: None, .. } = factor
                && let Some([only]) = identifiers(name).as_deref()
                && let Some(schema) = (self.0)(&fold(only))
            {
                let only = (*only).clone();
                *name = ObjectName::from(vec![Ident { span: only.span, ..quoted(&schema) }, only]);
            }
            ControlFlow::Continue(())
        }
    }
    let mut changed = statement.clone();
    let _finished = VisitMut::visit(&mut changed, &mut Names(find));
    changed
}

fn alias_of(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: quoted(name), columns: Vec::new(), at: None }
}

/// An identifier that means this name, quoted where it has to be.
fn quoted(name: &str) -> Ident {
    match quoted_identifier(name) == name {
        true => Ident::new(name),
        false => Ident::with_quote('"', name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{self, parse};

    fn query(sql: &str) -> Box<Statement> {
        match parse(sql).expect(sql).remove(0).statement {
            parser::Statement::Query(query) => query,
            other => panic!("{other:?} is no query"),
        }
    }

    #[test]
    fn names_get_schemas() {
        let find = |name: &str| (name == "t").then(|| "My s".to_owned());
        let changed = in_schemas(&query("SELECT t.x FROM T, u WHERE x IN (SELECT y FROM a.t)"), &find).to_string();
        assert_eq!(changed, "SELECT t.x FROM \"My s\".T, u WHERE x IN (SELECT y FROM a.t)");
    }

    #[test]
    fn tables_give_way_to_others_and_to_queries() {
        let find = |parts: &[String]| match parts.last()?.as_str() {
            "t" => Some(Substitute::Table(vec!["public".to_owned(), "New".to_owned()])),
            "v" => Some(Substitute::Query(query("SELECT 1, 2"), vec!["a".to_owned(), "b c".to_owned()])),
            _ => None,
        };
        let changed = |sql: &str| substituted(&query(sql), &find).to_string();
        assert_eq!(changed("SELECT t.x FROM t, u"), "SELECT t.x FROM public.\"New\" AS t, u");
        assert_eq!(changed("SELECT x FROM T AS s"), "SELECT x FROM public.\"New\" AS s");
        assert_eq!(changed("SELECT a FROM v"), "SELECT a FROM (SELECT 1, 2) AS v (a, \"b c\")");
        assert_eq!(changed("SELECT x FROM v AS w (x)"), "SELECT x FROM (SELECT 1, 2) AS w (x, \"b c\")");
        let named = "WITH t AS (SELECT 1) SELECT * FROM t";
        assert_eq!(changed(named), named);
    }
}
