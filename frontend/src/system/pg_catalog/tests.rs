//! Every relation can be read, whatever the catalog holds.

use super::*;

#[test]
fn all_fixed_rows_are_of_their_relations() {
    for relation in relations::all() {
        let batches = tables::fixed(relation).unwrap_or_else(|error| panic!("{}: {error}", relation.name));
        assert!(batches.iter().all(|batch| batch.schema() == relation.schema), "{}", relation.name);
    }
    let types = tables::fixed(relations::find(PG_CATALOG, "pg_type").expect("it is there")).expect("rows");
    assert!(types[0].num_rows() > 80);
}
