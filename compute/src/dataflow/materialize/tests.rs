//! A table that others follow, against a map.

use std::collections::BTreeMap;

use arrow::array::Int64Array;
use proptest::prelude::*;
use weir_common::catalog::{Column, Origin, RelationKind, RelationName};
use weir_common::ids::TableId;
use weir_common::types::SqlType;

use super::*;

/// A change of a row: its key, its value, and true if it is deleted.
type Change = (i64, Option<i64>, bool);

/// The rows of the table, as a follower has them.
type Rows = BTreeMap<i64, Option<i64>>;

#[derive(Clone, Debug)]
enum Step {
    /// A chunk comes.
    Take(Vec<Change>),
    /// The epoch ends: changes are written.
    End,
    /// Memory is short.
    Forget,
    /// The actor begins anew, in another term.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0_i64..12, prop::option::of(0_i64..3), prop::bool::weighted(0.3));
    prop_oneof![
        6 => prop::collection::vec(change, 1..8).prop_map(Step::Take),
        3 => Just(Step::End),
        1 => Just(Step::Forget),
        1 => Just(Step::Restart),
    ]
}

fn relation() -> Arc<Relation> {
    let column = |name: &str| Column { name: name.to_owned(), ty: SqlType::BigInt, origin: Origin::Expression };
    Arc::new(Relation {
        id: TableId(1),
        kind: RelationKind::Table,
        name: RelationName::public("t"),
        columns: ["k", "v"].map(column).to_vec(),
        hidden: Vec::new(),
        primary_key: vec![0],
        layouts: Vec::new(),
        sql: String::new(),
    })
}

fn chunk(changes: &[Change]) -> Chunk {
    let keys = Int64Array::from_iter_values(changes.iter().map(|(key, ..)| *key));
    let values: Int64Array = changes.iter().map(|(_, value, _)| *value).collect();
    let fields = relation().columns.iter().map(|column| column.ty.field(&column.name)).collect::<Vec<_>>();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let rows = RecordBatch::try_new(schema, vec![Arc::new(keys), Arc::new(values)]).expect("columns of one length");
    Chunk::new(rows, changes.iter().map(|(.., is_delete)| *is_delete).collect())
}

/// What the rule makes of a change.
fn expect(rows: &mut Rows, conflict: Conflict, (key, value, is_delete): Change) {
    if is_delete {
        rows.remove(&key);
        return;
    }
    match (conflict, rows.get(&key).copied()) {
        (Conflict::DoNothing, Some(_)) => None,
        (Conflict::UpdateIfNotNull, Some(before)) => rows.insert(key, value.or(before)),
        _ => rows.insert(key, value),
    };
}

/// Applies changes as a follower does, which never sees a row twice.
fn follow(rows: &mut Rows, changes: &Chunk) -> Result<(), TestCaseError> {
    let column = |place| changes.rows().column(place).as_primitive::<Int64Type>();
    for row in 0..changes.rows().num_rows() {
        let (key, value) = (column(0).value(row), column(1).is_valid(row).then(|| column(1).value(row)));
        let before = if changes.is_delete(row) { rows.remove(&key) } else { rows.insert(key, value) };
        prop_assert_eq!(before, changes.is_delete(row).then_some(value), "of key {}", key);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_follower_has_the_rows_of_the_table(
        conflict in prop_oneof![
            Just(Conflict::Overwrite), Just(Conflict::DoNothing), Just(Conflict::UpdateIfNotNull)
        ],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let begin = |is_fresh| Materialize::new(&relation(), conflict, (None, is_fresh));
        let mut table = begin(true);
        let (mut stored, mut wanted, mut followed) = (BTreeMap::<Bytes, Bytes>::new(), Rows::new(), Rows::new());
        for step in steps {
            match step {
                Step::Take(changes) => {
                    let chunk = chunk(&changes);
                    let keys = table.keys(&chunk);
                    let unknown = table.unknown(&keys);
                    if !unknown.is_empty() {
                        // A read waits until everything is written.
                        write(&mut stored, table.take());
                        let found: Vec<_> = unknown.iter().map(|key| stored.get(key).cloned()).collect();
                        table.learn(&unknown, &found);
                    }
                    follow(&mut followed, &table.resolve(&keys, &chunk).expect("rows are whole"))?;
                    changes.into_iter().for_each(|change| expect(&mut wanted, conflict, change));
                }
                Step::End => write(&mut stored, table.take()),
                Step::Forget => {
                    write(&mut stored, table.take());
                    table.forget();
                    prop_assert_eq!(table.known_bytes(), 0);
                }
                Step::Restart => {
                    write(&mut stored, table.take());
                    table = begin(false);
                }
            }
            prop_assert_eq!(&followed, &wanted);
            let known: usize = table.known.iter().map(|(key, value)| weight(key, value.as_ref()) + KNOWN_BYTES).sum();
            prop_assert_eq!(table.known_bytes(), known);
        }
        write(&mut stored, table.take());
        prop_assert_eq!(stored.len(), wanted.len());
    }
}

fn write(stored: &mut BTreeMap<Bytes, Bytes>, changes: Entries) {
    for (key, value) in changes {
        match value {
            Some(value) => stored.insert(key, value),
            None => stored.remove(&key),
        };
    }
}

#[test]
fn a_group_and_its_row_become_one_entry() {
    let mut view = Materialize::new(&relation(), Conflict::None, (None, true));
    // The first row is another one now, the second is gone, and the third stays.
    view.apply(&chunk(&[(1, Some(5), true), (1, Some(6), false), (2, Some(5), true)]));
    view.apply(&chunk(&[(3, Some(7), false)]));
    let keys = view.keys(&chunk(&[(1, None, false), (2, None, false), (3, None, false), (4, None, false)]));
    let groups = [Some("one"), None, Some("three"), Some("fails")].map(|group| group.map(Bytes::from));
    let mut groups: Entries = keys.iter().cloned().zip(groups).collect();
    groups.sort();
    let stored: BTreeMap<Bytes, Option<Bytes>> = view.take_with(groups).into_iter().collect();
    let mut value = |key: usize| {
        let entry = stored[&keys[key]].clone().expect("an entry");
        let rows = view.wanted.read_rows(&[entry]).expect("rows");
        rows.column(1).as_primitive::<Int64Type>().values().to_vec()
    };
    assert_eq!((value(0), value(2), value(3)), (vec![6], vec![7], vec![]));
    assert_eq!(stored[&keys[1]], None);
    let group = |key: usize| crate::storage::row::group_of(stored[&keys[key]].as_ref().expect("an entry"));
    assert_eq!(group(2).expect("a group"), "three");
    assert_eq!(group(3).expect("a group"), "fails");
}
