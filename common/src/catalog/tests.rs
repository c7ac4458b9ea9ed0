//! The stored form of entries, which newer versions have to read, and changes of entries.

use super::*;
use crate::ids::{JobSplit, SchemaId, SplitId};

/// As clusters have stored it before a relation and its job were told apart.
const TABLE: &str = concat!(
    r#"{"id":7,"kind":"table","name":"t","columns":[{"name":"id","type":"big_int","origin":"payload"},"#,
    r#"{"name":"kind","type":"varchar","origin":{"header":{"name":"Kind"}}}],"primary_key":[0],"#,
    r#""source":{"options":{"connector":"nats"},"encode":"json"},"sql":"CREATE TABLE t …","#,
    r#""splits":[{"split":"S","sequence":3,"stream_created":"2026-01-01T00:00:00Z"}],"state":"running","#,
    r#""dead_letters":8,"layouts":[[{"name":"id","type":"integer","origin":"payload"}]]}"#
);

const VIEW: &str = concat!(
    r#"{"id":9,"kind":"materialized_view","name":"v","columns":[{"name":"n","type":"integer","origin":"expression"}],"#,
    r#""primary_key":[],"source":{"relation":5,"name":"s","columns":[{"name":"n","type":"integer","origin":"payload"}]},"#,
    r#""sql":"CREATE MATERIALIZED VIEW v AS …","splits":[],"#,
    r#""state":{"failed":{"error":"division by zero","since_ms":1}},"dead_letters":null,"layouts":[]}"#
);

/// A view over two sources of one stream.
const UNITED: &str = concat!(
    r#"{"id":12,"kind":"materialized_view","name":"u","columns":[],"primary_key":[],"#,
    r#""source":{"reads":[{"relation":5,"name":"s","columns":[]},{"relation":6,"name":"t","columns":[]}],"#,
    r#""plan":{"fragments":[],"edges":[],"tables":[]}},"sql":"CREATE MATERIALIZED VIEW u AS …","#,
    r#""splits":[{"split":"5/S","sequence":1,"stream_created":null,"reads":{"job":5,"split":"S"}},"#,
    r#"{"split":"6/S","sequence":1,"stream_created":null,"reads":{"job":6,"split":"S"}}],"#,
    r#""state":"running","dead_letters":null,"layouts":[]}"#
);

/// A plain view, which was renamed and has comments.
const PLAIN: &str = concat!(
    r#"{"id":10,"kind":"view","name":"w","columns":[{"name":"n","type":"integer","origin":"expression"}],"primary_key":[],"#,
    r#""source":{"names":[{"relation":7,"name":"t","columns":[{"name":"id","type":"big_int","origin":"payload"}]}]},"#,
    r#""sql":"CREATE VIEW v AS …","splits":[],"state":"running","dead_letters":null,"layouts":[],"#,
    r#""comment":"what it is","column_comments":{"n":"a number"},"consumers":"v"}"#
);

/// A table outside of the schema `public`, and a view that reads it.
const IN_SCHEMA: &str = concat!(
    r#"{"id":14,"kind":"materialized_view","schema":"s","name":"m","columns":[],"primary_key":[],"#,
    r#""source":{"relation":13,"schema":"s","name":"t","columns":[]},"#,
    r#""sql":"CREATE MATERIALIZED VIEW m AS …","splits":[],"state":"running","dead_letters":null,"layouts":[],"#,
    r#""schema_id":12,"consumers":"s.m"}"#
);

/// A view whose statement names a plain one.
const THROUGH: &str = concat!(
    r#"{"id":11,"kind":"materialized_view","name":"m","columns":[],"primary_key":[],"#,
    r#""source":{"relation":5,"name":"s","columns":[],"#,
    r#""expanded":{"through":[{"relation":10,"name":"w"}],"query":"SELECT …"}},"#,
    r#""sql":"CREATE MATERIALIZED VIEW m AS …","splits":[],"state":"running","dead_letters":null,"layouts":[]}"#
);

/// An entry of the first versions, which have no kinds, keys, dead letters, layouts or creation
/// times of streams.
const OLDEST: &str = concat!(
    r#"{"id":1,"name":"old","columns":[],"source":{"options":{"connector":"nats"},"encode":"json"},"sql":"","#,
    r#""splits":[{"split":"S","sequence":1}],"state":{"failed":{"error":"no such stream"}}}"#
);

fn read(stored: &str) -> Entry {
    serde_json::from_str(stored).expect("a stored entry")
}

#[test]
fn entries_that_are_stored_stay_readable() {
    for stored in [TABLE, VIEW, UNITED, PLAIN, THROUGH, IN_SCHEMA] {
        assert_eq!(serde_json::to_string(&read(stored)).expect("an entry serialises"), stored);
    }
    let table = read(TABLE);
    assert_eq!((table.relation.id, table.job.id), (TableId(7), TableId(7)));
    assert_eq!((table.relation.layout(), table.relation.columns_of(0).map(<[Column]>::len)), (1, Some(1)));
    assert_eq!(table.job.stores().collect::<Vec<_>>(), [TableId(7), TableId(8)]);
    let (view, split) = (read(VIEW), SplitId("S".to_owned()));
    assert_eq!((view.job.read(&split).job, view.job.stream(), view.dead_letters()), (TableId(5), None, None));
    let of_source = |source| JobSplit { job: TableId(source), split: split.clone() };
    let united = read(UNITED);
    let read_splits: Vec<JobSplit> = united.job.splits.iter().map(|start| united.job.read(&start.split)).collect();
    assert_eq!(read_splits, [of_source(5), of_source(6)]);
    let newer = read(&VIEW.replace(r#""dead_letters":null"#, r#""dead_letters":10"#));
    let letters = newer.dead_letters().expect("letters of a view");
    assert_eq!((letters.id, letters.is_keyed(), letters.declared_key().len()), (TableId(10), true, 0));
    assert_eq!((letters.column(2).name.as_str(), letters.column(7).name.as_str()), ("row", "_letter"));
    let plain = read(PLAIN);
    assert_eq!((plain.has_job(), plain.consumers(), plain.job.inputs().count()), (false, "v", 0));
    assert_eq!(plain.depends_on().collect::<Vec<_>>(), [TableId(7)]);
    assert_eq!(read(THROUGH).depends_on().collect::<Vec<_>>(), [TableId(5), TableId(10)]);
    let other = read(IN_SCHEMA);
    assert_eq!((other.name().to_string().as_str(), other.about.schema), ("s.m", SchemaId(12)));
    assert_eq!(other.job.reads()[0].name, RelationName::new("s", "t"));
    assert_eq!((table.name(), table.about.schema), (&RelationName::public("t"), SchemaId::PUBLIC));
    let oldest = read(OLDEST);
    assert_eq!((oldest.relation.kind, oldest.relation.is_keyed()), (RelationKind::Table, false));
    assert_eq!(oldest.job.state, JobState::Failed { error: "no such stream".to_owned(), since_ms: None, torn: false });
}

/// A view of a version that knows joins, and states and kinds of relations that this one does not.
const NEWER: &str = concat!(
    r#"{"id":13,"kind":"index","name":"j","columns":[{"name":"n","type":"vector","origin":"expression"}],"primary_key":[0],"#,
    r#""source":{"reads":[{"relation":5,"name":"s","columns":[]},{"relation":6,"name":"t","columns":[],"as_of":true}],"#,
    r#""plan":{"fragments":[{"distribution":"hash","operators":[{"hash_join":{"kind":"inner"}}],"#,
    r#""output":{"columns":[],"key":[],"append_only":false}}],"edges":[],"tables":[]}},"sql":"CREATE …","#,
    r#""splits":[],"state":"paused","dead_letters":14,"layouts":[],"comment":"joined"}"#
);

#[test]
fn an_entry_of_a_newer_version_keeps_what_this_one_does_not_know() {
    let newer = read(NEWER);
    assert_eq!((newer.id(), newer.relation.kind), (TableId(13), RelationKind::MaterializedView));
    assert_eq!(newer.name(), &RelationName::public("j"));
    assert_eq!((newer.relation.columns.len(), newer.relation.primary_key.len()), (0, 0));
    assert_eq!(newer.depends_on().collect::<Vec<_>>(), [TableId(5), TableId(6)]);
    assert_eq!(newer.job.stores().collect::<Vec<_>>(), [TableId(13), TableId(14)]);
    assert!(!newer.job.is_running() && newer.query().is_none());
    let Plan::Unknown(unknown) = &newer.job.plan else { panic!("this version knows hash joins") };
    assert_eq!(unknown.reason, "unknown variant `hash_join`");
    let field = NEWER.replace(r#"{"hash_join":{"kind":"inner"}}"#, r#""union""#).replace("vector", "integer");
    let Plan::Unknown(unknown) = &read(&field).job.plan else { panic!("this version knows AS OF") };
    assert_eq!(unknown.reason, "unknown field `as_of`");

    let waits = JobState::Waiting { error: String::new(), since_ms: Some(1) };
    let waiting = newer.with_state(waits.clone()).with_consumers("before");
    let stored: serde_json::Value = serde_json::to_value(&waiting).expect("an entry serialises");
    let mut expected: serde_json::Value = serde_json::from_str(NEWER).expect("JSON");
    expected["state"] = serde_json::json!({"waiting": {"error": "", "since_ms": 1}});
    expected["consumers"] = "before".into();
    assert_eq!(stored, expected);
    let again = read(&stored.to_string());
    assert_eq!(
        (again.job.state.clone(), again.consumers(), again.about.comment.as_deref()),
        (waits, "before", Some("joined"))
    );
    let broken: Result<Entry, _> = serde_json::from_str(r#"{"id":"13","name":"j"}"#);
    broken.expect_err("an entry has a number");
}

#[test]
fn an_altered_job_runs_again_and_old_columns_become_a_layout() {
    let before = read(TABLE).with_state(JobState::Failed { error: String::new(), since_ms: None, torn: false });
    let mut declared = before.declaration();
    assert_eq!(before.altered(declared.clone()), read(TABLE));
    declared.columns.pop();
    let after = before.altered(declared.clone());
    assert_eq!((after.declaration(), after.relation.layout()), (declared, 2));
    assert_eq!(after.relation.columns_of(1), Some(before.relation.columns.as_slice()));
    assert_eq!((&after.job.splits, after.job.dead_letters), (&before.job.splits, Some(TableId(8))));
}
