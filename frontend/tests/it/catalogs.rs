//! The contents of the system catalogs for tables, views and keys, and the types of their columns.
//! The expected answers are those of PostgreSQL 15 with the same tables.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int32Array, StringArray};
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use weir_common::catalog::{Column, Declaration, Entry, OnError, Origin, Plan, Reads, RelationKind, RelationName};
use weir_common::ids::TableId;
use weir_common::types::SqlType;

use crate::cluster::{Cluster, Shared};
use crate::semantics::check;
use crate::statements::rows;

/// Adds `users (id integer primary key, "Full Name" varchar, tags varchar[])`, and a table whose
/// key has two columns, the second ahead of the first.
pub(crate) fn add_users(shared: &Shared) {
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let tags = datafusion::arrow::array::new_null_array(&SqlType::Array(Box::new(SqlType::Varchar)).arrow(), 2);
    let columns = [
        ("id", SqlType::Integer, Arc::clone(&ids)),
        ("Full Name", SqlType::Varchar, Arc::clone(&names)),
        ("tags", SqlType::Array(Box::new(SqlType::Varchar)), tags),
    ];
    shared.add("users", &columns, 10);
    shared.alter_newest(|relation| relation.primary_key = vec![0]);
    let columns = [("a", SqlType::Integer, ids), ("b", SqlType::Varchar, names)];
    shared.add("pairs", &columns, 10);
    shared.alter_newest(|relation| relation.primary_key = vec![1, 0]);
}

/// Adds `big`, a view over a source that does not exist, whose key has a column that it shows and
/// one that it does not.
pub(crate) fn add_view(shared: &Shared) {
    let mut state = shared.state();
    state.catalog_version += 1;
    let columns = state.catalog[0].relation.columns.clone();
    let reads =
        Reads { relation: TableId(77), name: RelationName::public("s"), columns: columns.clone(), expanded: None };
    let declared = Declaration {
        kind: RelationKind::MaterializedView,
        name: RelationName::public("big"),
        columns,
        hidden: vec![Column { name: "hidden".to_owned(), ty: SqlType::Integer, origin: Origin::Expression }],
        primary_key: vec![3, 0],
        plan: Plan::View(reads),
        on_error: OnError::default(),
        sql: "CREATE MATERIALIZED VIEW big AS SELECT * FROM s WHERE id > 1".to_owned(),
    };
    let id = TableId(u32::try_from(state.catalog_version).expect("few tables"));
    state.catalog.push(Entry::new(id, declared, Vec::new(), None));
}

async fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::start().await;
    add_users(&cluster.shared);
    add_view(&cluster.shared);
    let client = cluster.client().await;
    (cluster, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stand_in_pg_catalog() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            (
                "SELECT attname, attnum, attnotnull, atttypid::regtype FROM pg_attribute WHERE attrelid = 'users'::regclass \
                 ORDER BY 2",
                "id|1|t|integer\nFull Name|2|f|character varying\ntags|3|f|character varying[]",
            ),
            (
                "SELECT indrelid::regclass, indexrelid::regclass, indkey, indkey[0], indisprimary, indisunique, indnatts \
                 FROM pg_index ORDER BY 1::text",
                "pairs|pairs_pkey|2 1|2|t|t|2\nusers|users_pkey|1|1|t|t|1",
            ),
            (
                "SELECT conname, contype, conrelid::regclass, conkey, conkey[1] FROM pg_constraint ORDER BY 1",
                "pairs_pkey|p|pairs|{2,1}|2\nusers_pkey|p|users|{1}|1",
            ),
            ("SELECT relkind, relhasindex FROM pg_class WHERE oid = 'users'::regclass", "r|t"),
            ("SELECT relkind, relam FROM pg_class WHERE relname = 'users_pkey'", "i|403"),
            ("SELECT pg_get_constraintdef(oid) FROM pg_constraint ORDER BY 1", "PRIMARY KEY (b, a)\nPRIMARY KEY (id)"),
            (
                "SELECT pg_get_indexdef('users_pkey'::regclass), pg_get_indexdef('pairs_pkey'::regclass, 1, true)",
                "CREATE UNIQUE INDEX users_pkey ON public.users USING btree (id)|b",
            ),
            (
                "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
                "pairs|pairs_pkey|CREATE UNIQUE INDEX pairs_pkey ON public.pairs USING btree (b, a)\n\
                 users|users_pkey|CREATE UNIQUE INDEX users_pkey ON public.users USING btree (id)",
            ),
            (
                "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'big'::regclass ORDER BY attnum",
                "id|f\nFull Name|f\ntags|f",
            ),
            ("SELECT relhasindex, relnatts FROM pg_class WHERE oid = 'big'::regclass", "f|3"),
            ("SELECT matviewname, definition FROM pg_matviews", "big| SELECT * FROM s WHERE id > 1;"),
            ("SELECT pg_get_viewdef('big'::regclass) = pg_get_viewdef('big'), pg_get_viewdef('big', true) IS NULL", "t|f"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stand_in_information_schema() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            (
                "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name = 'users' ORDER BY 1",
                "Full Name|YES\nid|NO\ntags|YES",
            ),
            (
                "SELECT table_name, constraint_name FROM information_schema.table_constraints \
                 WHERE constraint_type = 'PRIMARY KEY' ORDER BY 1",
                "pairs|pairs_pkey\nusers|users_pkey",
            ),
            (
                "SELECT column_name, ordinal_position FROM information_schema.key_column_usage \
                 WHERE table_name = 'pairs' ORDER BY 2",
                "b|1\na|2",
            ),
            (
                "SELECT tc.table_name, kc.column_name FROM information_schema.table_constraints tc \
                 JOIN information_schema.key_column_usage kc ON kc.constraint_name = tc.constraint_name \
                 AND kc.table_schema = tc.table_schema WHERE tc.constraint_type = 'PRIMARY KEY' ORDER BY 1, 2",
                "pairs|a\npairs|b\nusers|id",
            ),
            ("SELECT count(*) FROM information_schema.referential_constraints", "0"),
            (
                "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
                "pairs|BASE TABLE\nusers|BASE TABLE",
            ),
            ("SELECT table_type FROM information_schema.tables WHERE table_name = 'pg_class'", "BASE TABLE"),
            (
                "SELECT column_name FROM information_schema.constraint_column_usage WHERE constraint_name = 'users_pkey'",
                "id",
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oids_are_names_in_every_place() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            ("SELECT 'users'::regclass::text, 23::regtype::text, to_regtype('int4')::text, to_regclass('nope')", "users|integer|integer|NULL"),
            ("SELECT 23::regtype::text, (SELECT 'users'::regclass)::text", "integer|users"),
            ("SELECT 'pg_catalog.pg_class'::regclass, 'pg_class'::regclass::oid, 1259::regclass", "pg_class|1259|pg_class"),
            ("SELECT 'information_schema.tables'::regclass, '\"users\"'::regclass", "information_schema.tables|users"),
            ("SELECT oid::regclass::text FROM pg_class WHERE relname = 'users'", "users"),
            ("SELECT relnamespace::regnamespace, relowner::regrole FROM pg_class WHERE relname = 'users'", "public|root"),
            ("SELECT 'integer'::regtype, 'int4'::regtype::oid, 'varchar(3)[]'::regtype, '_int4'::regtype", "integer|23|character varying[]|integer[]"),
            ("SELECT typreceive::oid > 0, typinput, typinput = 'int4in'::regproc FROM pg_type WHERE typname = 'int4'", "t|int4in|t"),
            ("SELECT pg_typeof(1), pg_typeof('x'::text), pg_typeof(relname), pg_typeof(oid::regclass) FROM pg_class WHERE relname = 'users'", "integer|character varying|name|regclass"),
            ("SELECT 'nope'::regclass", "ERROR 42P01"),
            ("SELECT 'nope'::regtype", "ERROR 42704"),
            ("SELECT '4294967295'::oid, 4294967295::oid, 0::regclass, 99999::regclass", "4294967295|4294967295|-|99999"),
            ("SELECT count(*) FROM pg_class WHERE oid = 'users'::regclass AND oid::regclass::text LIKE 'u%'", "1"),
            ("SELECT 'is ' || 'users'::regclass::text, lower(23::regtype::text)", "is users|integer"),
            ("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum = 3", "character varying[]"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_have_postgresqls_types() {
    let (_cluster, client) = cluster().await;
    for (table, columns, types) in [
        (
            "pg_class",
            "oid, relname, relkind, relnatts, reltuples, relacl, relpartbound, relfrozenxid",
            vec![
                Type::OID,
                Type::NAME,
                Type::CHAR,
                Type::INT2,
                Type::FLOAT4,
                Type::ACLITEM_ARRAY,
                Type::PG_NODE_TREE,
                Type::XID,
            ],
        ),
        ("pg_index", "indkey, indclass, indisprimary", vec![Type::INT2_VECTOR, Type::OID_VECTOR, Type::BOOL]),
        ("pg_constraint", "conkey, contype", vec![Type::INT2_ARRAY, Type::CHAR]),
        ("pg_type", "typinput, typdefault", vec![Type::REGPROC, Type::TEXT]),
        (
            "information_schema.columns",
            "column_name, ordinal_position, data_type",
            vec![Type::NAME, Type::INT4, Type::VARCHAR],
        ),
    ] {
        let statement = client.prepare(&format!("SELECT {columns} FROM {table}")).await.expect(table);
        let told: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
        assert_eq!(told, types, "{table}");
        client.query(&statement, &[]).await.expect("every value can be sent in binary");
    }
    let row = client.query_one("SELECT oid, relname, relkind FROM pg_class WHERE relname = 'users'", &[]).await;
    let row = row.expect("a row");
    assert_eq!((row.get::<_, &str>(1), row.get::<_, i8>(2)), ("users", i8::try_from(b'r').expect("ASCII")));
    let row = client.query_one("SELECT relname FROM pg_class WHERE oid = $1", &[&row.get::<_, u32>(0)]).await;
    assert_eq!(row.expect("a row").get::<_, &str>(0), "users");
    let text = client.prepare("SELECT upper(relname) FROM pg_class").await.expect("a query");
    assert_eq!(*text.columns()[0].type_(), Type::VARCHAR);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_the_ways_that_drivers_look_for_them() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            (
                "SELECT a.attname FROM (SELECT indrelid, indkey, generate_subscripts(indkey, 1) idx FROM pg_index \
                 WHERE indrelid = '\"pairs\"'::regclass AND indisprimary) i JOIN pg_attribute a ON a.attrelid = i.indrelid \
                 AND a.attnum = i.indkey[i.idx] ORDER BY i.idx",
                "b\na",
            ),
            (
                "SELECT at.attname, at.attnum, ty.typname FROM pg_catalog.pg_attribute at LEFT JOIN pg_catalog.pg_type ty \
                 ON (ty.oid = at.atttypid) WHERE attrelid = 'users'::regclass AND attnum = ANY ((SELECT con.conkey \
                 FROM pg_catalog.pg_class rel LEFT OUTER JOIN pg_catalog.pg_constraint con ON con.conrelid = rel.oid \
                 AND con.contype = 'p' WHERE rel.relkind IN ('r', 's', 't', 'p') AND rel.oid = 'users'::regclass)::oid[])",
                "id|1|int4",
            ),
            (
                "SELECT attr.conrelid::regclass::text, array_agg(CAST(attr.attname AS TEXT) ORDER BY attr.ord) FROM \
                 (SELECT con.conrelid, con.conname, con.attnum, con.ord, a.attname FROM pg_catalog.pg_attribute a \
                 JOIN (SELECT c.conrelid, c.conname, unnest(c.conkey) AS attnum, generate_subscripts(c.conkey, 1) AS ord \
                 FROM pg_catalog.pg_constraint c WHERE c.contype = 'p' AND c.conrelid = 'pairs'::regclass) con \
                 ON a.attnum = con.attnum AND a.attrelid = con.conrelid) attr GROUP BY attr.conrelid, attr.conname",
                "pairs|{b,a}",
            ),
            (
                "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) \
                 WHERE i.indrelid = 'pairs'::regclass AND i.indisprimary ORDER BY 1",
                "a\nb",
            ),
            (
                "SELECT result.COLUMN_NAME, result.KEY_SEQ, result.PK_NAME FROM (SELECT a.attname AS COLUMN_NAME, \
                 (information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ, ci.relname AS PK_NAME, \
                 information_schema._pg_expandarray(i.indkey) AS KEYS, a.attnum AS A_ATTNUM FROM pg_catalog.pg_class ct \
                 JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_index i ON (a.attrelid = i.indrelid) \
                 JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid) WHERE ct.relname = 'pairs' AND i.indisprimary) result \
                 WHERE result.A_ATTNUM = (result.KEYS).x ORDER BY result.key_seq",
                "b|1|pairs_pkey\na|2|pairs_pkey",
            ),
            ("SELECT array_lower(indkey, 1), array_upper(indkey, 1), array_length(indkey, 1) FROM pg_index WHERE indrelid = 'pairs'::regclass", "0|1|2"),
            ("SELECT indkey::text, indkey::int2[], array_to_string(indkey, ',') FROM pg_index WHERE indrelid = 'pairs'::regclass", "2 1|{2,1}|2,1"),
        ],
    )
    .await;
}

/// The queries of Django, Drizzle, TypeORM and DBD::Pg.
#[tokio::test(flavor = "multi_thread")]
async fn object_mappers_find_keys_by_subqueries() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            (
                "SELECT c.conname, array(SELECT attname FROM unnest(c.conkey) WITH ORDINALITY cols(colid, arridx) \
                 JOIN pg_attribute AS ca ON cols.colid = ca.attnum WHERE ca.attrelid = c.conrelid ORDER BY cols.arridx) \
                 FROM pg_constraint c ORDER BY 1",
                "pairs_pkey|{b,a}\nusers_pkey|{id}",
            ),
            (
                "SELECT indexname, array_agg(attname ORDER BY arridx), indisprimary FROM (SELECT c2.relname AS indexname, idx.*, \
                 attr.attname FROM (SELECT * FROM pg_index i, unnest(i.indkey, i.indoption) WITH ORDINALITY \
                 koi(key, option, arridx)) idx LEFT JOIN pg_class c ON idx.indrelid = c.oid LEFT JOIN pg_class c2 \
                 ON idx.indexrelid = c2.oid LEFT JOIN pg_attribute attr ON attr.attrelid = c.oid AND attr.attnum = idx.key \
                 WHERE c.relname = 'pairs') s2 GROUP BY indexname, indisprimary",
                "pairs_pkey|{b,a}|t",
            ),
            (
                "SELECT c.relname, c.tableoid::regclass, EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid) \
                 FROM pg_class c LEFT JOIN pg_description d ON c.oid = d.objoid AND c.tableoid = d.classoid \
                 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'm') ORDER BY 1",
                "big|pg_class|f\npairs|pg_class|t\nusers|pg_class|t",
            ),
            (
                "SELECT columns.*, a.attnum FROM information_schema.columns LEFT JOIN pg_attribute a \
                 ON a.attname = columns.column_name AND a.attrelid = (SELECT c.oid FROM pg_class c LEFT JOIN pg_namespace n \
                 ON n.oid = c.relnamespace WHERE c.relname = columns.table_name AND n.nspname = columns.table_schema) \
                 WHERE table_name = 'pairs' AND a.attnum IS NULL",
                "",
            ),
            (
                "SELECT c.column_name, constraint_type FROM information_schema.table_constraints tc \
                 JOIN information_schema.constraint_column_usage ccu USING (constraint_schema, constraint_name) \
                 JOIN information_schema.columns c ON c.table_schema = tc.constraint_schema AND tc.table_name = c.table_name \
                 AND ccu.column_name = c.column_name WHERE tc.table_name = 'users' AND constraint_schema = 'public'",
                "id|PRIMARY KEY",
            ),
            (
                "SELECT k.attnum, k.i, a.attname FROM pg_index i CROSS JOIN LATERAL (SELECT unnest(i.indkey), \
                 generate_subscripts(i.indkey, 1) + 1) AS k(attnum, i) JOIN pg_attribute a ON a.attrelid = i.indrelid \
                 AND a.attnum = k.attnum WHERE i.indrelid = 'pairs'::regclass ORDER BY 2",
                "2|1|b\n1|2|a",
            ),
            (
                "SELECT tc.constraint_name FROM information_schema.table_constraints tc JOIN pg_constraint con \
                 ON tc.constraint_name = con.conname AND con.conrelid = (SELECT oid FROM pg_class WHERE relname = tc.table_name \
                 AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = tc.constraint_schema)) \
                 WHERE tc.table_name = 'pairs' AND tc.constraint_type = 'PRIMARY KEY'",
                "pairs_pkey",
            ),
            (
                "SELECT CASE WHEN condeferrable = 'f' THEN 7 WHEN condeferred = 't' THEN 6 END FROM pg_constraint \
                 WHERE conname = 'users_pkey'",
                "7",
            ),
            (
                "SELECT con.parent, con.condeferred FROM (SELECT unnest(c.conkey) AS parent, CASE WHEN c.condeferred THEN 'D' \
                 ELSE 'I' END AS condeferred FROM pg_constraint c WHERE conname = 'users_pkey') con",
                "1|I",
            ),
        ],
    )
    .await;
}

/// Drivers receive the table and the number of a column.
#[tokio::test(flavor = "multi_thread")]
async fn results_tell_which_columns_they_are_made_of() {
    let (cluster, client) = cluster().await;
    let price: ArrayRef =
        datafusion::arrow::array::new_null_array(&SqlType::Decimal { precision: 10, scale: 2 }.arrow(), 1);
    cluster.shared.add("prices", &[("price", SqlType::Decimal { precision: 10, scale: 2 }, price)], 10);
    let oid = rows(&client, "SELECT 'users'::regclass::oid").await.parse::<u32>().expect("an oid");
    let prices = rows(&client, "SELECT 'prices'::regclass::oid").await.parse::<u32>().expect("an oid");
    let (name, tags) = (Some((oid, 2)), Some((oid, 3)));
    for (sql, expected) in [
        ("SELECT \"Full Name\", id, 1, upper(\"Full Name\") FROM users", vec![name, Some((oid, 1)), None, None]),
        ("SELECT n AS m FROM (SELECT \"Full Name\" AS n FROM users ORDER BY id LIMIT 1) u", vec![name]),
        ("WITH u AS (SELECT * FROM users) SELECT DISTINCT tags FROM u JOIN pairs ON a = id", vec![tags]),
        ("SELECT \"Full Name\", count(*) FROM users GROUP BY 1", vec![name, None]),
        ("SELECT tags FROM users UNION SELECT tags FROM users", vec![None]),
        ("SELECT id::bigint, coalesce(id, 1) FROM users", vec![None, None]),
        ("SELECT oid, relname FROM pg_class", vec![Some((1259, 1)), Some((1259, 2))]),
        ("SELECT price, price + 1 FROM prices", vec![Some((prices, 1)), None]),
    ] {
        let statement = client.prepare(sql).await.expect(sql);
        let told = statement.columns().iter().map(|column| column.table_oid().zip(column.column_id()));
        assert_eq!(told.collect::<Vec<_>>(), expected, "{sql}");
    }
    let sql = "SELECT price, price AS p, price + 1, 1::numeric(5, 1), 1::numeric FROM prices";
    let statement = client.prepare(sql).await.expect(sql);
    let modifiers: Vec<i32> = statement.columns().iter().map(tokio_postgres::Column::type_modifier).collect();
    assert_eq!(modifiers, [655_366, 655_366, -1, 327_685, -1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_quoted_where_the_grammar_needs_it() {
    let (_cluster, client) = cluster().await;
    check(
        &client,
        &[
            (
                "SELECT quote_ident('public'), quote_ident('user_id'), quote_ident('timestamp'), quote_ident('value')",
                "public|user_id|\"timestamp\"|value",
            ),
            (
                "SELECT quote_ident('name'), quote_ident('left'), quote_ident('A'), quote_ident('int')",
                "name|\"left\"|\"A\"|\"int\"",
            ),
            ("SELECT quote_literal(1), quote_nullable(NULL), quote_nullable('a''b')", "'1'|NULL|'a''b'"),
            ("SELECT catcode, barelabel, catdesc FROM pg_get_keywords() WHERE word = 'select'", "R|t|reserved"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_relation_of_the_catalogs_can_be_read() {
    let (_cluster, client) = cluster().await;
    let relations = "SELECT oid::regclass FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace::regnamespace::text \
                     IN ('pg_catalog', 'information_schema') ORDER BY 1";
    let relations = rows(&client, relations).await;
    assert!(relations.lines().count() > 150, "{relations}");
    for relation in relations.lines() {
        let sql = format!("SELECT * FROM {relation}");
        client.simple_query(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}
