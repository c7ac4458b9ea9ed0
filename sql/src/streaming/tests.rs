//! Queries and their plans, as text: the files of `golden`. `WEIR_GOLDEN=write` writes the plans
//! anew.

mod expressions;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider,
};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::session_state::SessionState;
use weir_common::catalog::{Column, Origin, Relation, RelationKind, RelationName};
use weir_common::ids::TableId;
use weir_common::plan::JobPlan;
use weir_common::types::SqlType;

use crate::error::Error;
use crate::execution::QueryThreads;
use crate::parser::{self, DATABASE, SCHEMA, Statement};
use crate::planner::{self, Planner, SystemCatalogs};
use crate::relation::NamedRelation;

fn relation(id: u32, kind: RelationKind, name: &str, columns: &[(&str, SqlType)], primary_key: &[usize]) -> Relation {
    let column =
        |(name, ty): &(&str, SqlType)| Column { name: (*name).to_owned(), ty: ty.clone(), origin: Origin::Payload };
    Relation {
        id: TableId(id),
        kind,
        name: RelationName::public(name),
        columns: columns.iter().map(column).collect(),
        hidden: Vec::new(),
        primary_key: primary_key.to_vec(),
        layouts: Vec::new(),
        sql: String::new(),
    }
}

/// A source of orders, a keyed table of users, and a table of log lines without a key.
fn state(planner: &Planner) -> SessionState {
    let orders = [
        ("id", SqlType::BigInt),
        ("channel", SqlType::Varchar),
        ("price", SqlType::Decimal { precision: 10, scale: 2 }),
        ("quantity", SqlType::Integer),
        ("ordered", SqlType::Timestamptz),
        ("weight", SqlType::Double),
        ("document", SqlType::Jsonb),
    ];
    let users = [("id", SqlType::BigInt), ("name", SqlType::Varchar), ("city", SqlType::Varchar)];
    let log = [("line", SqlType::Varchar), ("level", SqlType::SmallInt)];
    let relations = [
        relation(1, RelationKind::Source, "orders", &orders, &[]),
        relation(2, RelationKind::Table, "users", &users, &[0]),
        relation(3, RelationKind::Table, "log", &log, &[]),
    ];
    let (database, catalog, schema) =
        (MemoryCatalogProviderList::new(), MemoryCatalogProvider::new(), MemorySchemaProvider::new());
    for relation in relations {
        let (name, rows) = (relation.name.name.clone(), Arc::new(EmptyTable::new(relation.schema())));
        schema.register_table(name, Arc::new(NamedRelation::new(Arc::new(relation), rows))).expect("a new name");
    }
    catalog.register_schema(SCHEMA, Arc::new(schema)).expect("a new schema");
    database.register_catalog(DATABASE.to_owned(), Arc::new(catalog));
    let template = planner.template([]);
    planner::state(&template, template.config().clone(), Arc::new(database))
}

/// A catalog with an `orders` source, and what plans queries over it.
pub(crate) struct Fixture {
    pub(crate) planner: Planner,
    pub(crate) threads: QueryThreads,
    pub(crate) state: SessionState,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let planner = Planner::new(0, SystemCatalogs::default()).expect("a planner");
        let state = state(&planner);
        Fixture { planner, threads: QueryThreads::new().expect("threads"), state }
    }

    async fn plan(&self, sql: &str) -> Result<JobPlan, Error> {
        let parsed = parser::parse(&format!("CREATE MATERIALIZED VIEW v AS {sql}"))?.pop().expect("a statement");
        let Statement::CreateView(create) = &parsed.statement else { panic!("a view") };
        let query = create.query.clone();
        let draft = self.planner.read(parsed.clone(), query.clone(), *query)?;
        let prepared = draft.prepare(&[], || self.state.clone(), &self.threads).await?;
        super::plan(&self.state, planner::plan(&self.state, &prepared).await?)
    }
}

#[tokio::test]
async fn queries_become_the_plans_of_the_golden_files() {
    let fixture = Fixture::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/streaming/golden");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a file").path();
        let golden = std::fs::read_to_string(&path).expect("the golden file");
        let mut found = String::new();
        for case in golden.trim_end().split("\n\n\n") {
            let query = case.split("\n--\n").next().expect("split gives one part").trim();
            let plan = match fixture.plan(query).await {
                Ok(plan) => plan.to_string(),
                Err(error) => format!("{}: {error}", error.sqlstate),
            };
            let separator = if found.is_empty() { "" } else { "\n\n\n" };
            write!(found, "{separator}{query}\n--\n{plan}").expect("a string");
        }
        found.push('\n');
        if std::env::var("WEIR_GOLDEN").as_deref() == Ok("write") {
            std::fs::write(&path, found).expect("the golden file");
        } else {
            assert_eq!(found, golden, "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_stored_plan_is_read_back() {
    let fixture = Fixture::new();
    let sql = "SELECT upper(channel), CASE quantity WHEN 1 THEN 'one' WHEN 2 THEN 'two' END, NULL::jsonb, count(*), \
               min(price) FILTER (WHERE id IN (1, 2, 3)) FROM orders WHERE quantity BETWEEN 1 AND 5 GROUP BY 1, 2, 3";
    let plan = fixture.plan(sql).await.expect("a plan");
    let stored = serde_json::to_string(&plan).expect("JSON");
    assert_eq!(serde_json::from_str::<JobPlan>(&stored).expect("a plan"), plan);
}
