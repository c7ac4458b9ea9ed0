//! Limits of the catalog's size: a definition has to fit into a value of the metadata store, and all
//! of them together into one answer to a frontend. A larger one is refused before it is written,
//! because a write that the store refuses would cost the leader its leadership. Pure.

use weir_common::catalog::{Entry, Schema};
use weir_common::error::Kind;
use weir_common::rpc;

/// Tables of a cluster.
const TABLES_MAX: usize = 4_096;
/// One definition, as it is stored; half of what a value of the store may have.
const TABLE_BYTES_MAX: usize = crate::store::VALUE_BYTES_MAX / 2;
/// All definitions; frontends take twice as much.
const CATALOG_BYTES_MAX: usize = 32 << 20;
/// Schemas of a cluster, `public` included, and one of them as it is stored: all of them take half
/// as much as all definitions.
const SCHEMAS_MAX: usize = 1_024;
const SCHEMA_BYTES_MAX: usize = CATALOG_BYTES_MAX / 2 / SCHEMAS_MAX;

/// Checks that there is room for one more entry.
///
/// # Errors
/// `54000`, which names the limit that is exceeded.
pub(super) fn check<'a>(new: &Entry, others: impl Iterator<Item = &'a Entry>) -> Result<(), rpc::Error> {
    let own = size(new);
    if own > TABLE_BYTES_MAX {
        let name = new.name();
        let message = format!("the definition of table \"{name}\" takes {own} bytes, more than {TABLE_BYTES_MAX}");
        return refuse(message, "declare fewer columns, or write the statement shorter");
    }
    let (mut count, mut bytes) = (1, own);
    for entry in others {
        count += 1;
        bytes += size(entry);
    }
    if count > TABLES_MAX {
        return refuse(format!("a cluster can have at most {TABLES_MAX} tables"), "drop tables that are not needed");
    }
    if bytes > CATALOG_BYTES_MAX {
        let message = format!("the definitions of all tables take {bytes} bytes, more than {CATALOG_BYTES_MAX}");
        return refuse(message, "drop tables that are not needed");
    }
    Ok(())
}

/// Checks that there is room for a schema, of which there are so many others.
///
/// # Errors
/// `54000`, which names the limit that is exceeded.
pub(super) fn check_schema(new: &Schema, others: usize) -> Result<(), rpc::Error> {
    if others >= SCHEMAS_MAX {
        return refuse(format!("a cluster can have at most {SCHEMAS_MAX} schemas"), "drop schemas that are not needed");
    }
    let own = serde_json::to_vec(new).expect("a schema serialises").len();
    if own > SCHEMA_BYTES_MAX {
        let message = format!("schema \"{}\" takes {own} bytes, more than {SCHEMA_BYTES_MAX}", new.name);
        return refuse(message, "write a shorter comment");
    }
    Ok(())
}

fn refuse(message: String, hint: &str) -> Result<(), rpc::Error> {
    Err(rpc::Error::new(Kind::User, message).with_sqlstate("54000").with_hint(hint))
}

fn size(entry: &Entry) -> usize {
    serde_json::to_vec(entry).expect("an entry serialises").len()
}

#[cfg(test)]
mod tests {
    use weir_common::catalog::{Declaration, Encode, OnError, Plan, RelationKind, RelationName, Source};
    use weir_common::ids::TableId;

    use super::*;

    fn table(bytes: usize) -> Entry {
        let source = Source { options: Default::default(), encode: Encode::Json };
        let declared = Declaration {
            kind: RelationKind::Table,
            name: RelationName::public("t"),
            columns: Vec::new(),
            hidden: Vec::new(),
            primary_key: Vec::new(),
            plan: Plan::Stream(source),
            on_error: OnError::default(),
            sql: "x".repeat(bytes),
        };
        Entry::new(TableId(1), declared, Vec::new(), None)
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |new: usize, others: &[Entry]| {
            let error = check(&table(new), others.iter()).err()?;
            assert_eq!((error.sqlstate.as_deref(), error.hint.is_some()), (Some("54000"), true));
            Some(error.message)
        };
        assert_eq!(refused(TABLE_BYTES_MAX - 1_000, &[]), None);
        assert!(refused(TABLE_BYTES_MAX, &[]).is_some_and(|message| message.contains("table \"t\"")));
        let many = vec![table(10); TABLES_MAX];
        assert_eq!(refused(10, &many[1..]), None);
        assert!(refused(10, &many).is_some_and(|message| message.contains("4096 tables")));
        let large = vec![table(TABLE_BYTES_MAX - 1_000); CATALOG_BYTES_MAX / TABLE_BYTES_MAX];
        assert!(refused(TABLE_BYTES_MAX - 1_000, &large).is_some_and(|message| message.contains("all tables")));
    }

    #[test]
    fn schemas_that_do_not_fit_are_refused() {
        let schema = |bytes: usize| Schema { comment: Some("x".repeat(bytes)), ..Schema::public() };
        let refused = |bytes, others| check_schema(&schema(bytes), others).err().map(|error| error.message);
        assert_eq!(refused(SCHEMA_BYTES_MAX - 100, SCHEMAS_MAX - 1), None);
        assert!(refused(SCHEMA_BYTES_MAX, 1).is_some_and(|message| message.contains("schema \"public\"")));
        assert!(refused(1, SCHEMAS_MAX).is_some_and(|message| message.contains("1024 schemas")));
    }
}
