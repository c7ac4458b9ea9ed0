//! Dead letters of a view: rows for which an expression or an aggregate of it fails.
//!
//! A letter is state of the operator that failed, and a row of the relation of the view's letters.
//! Its key is the operator and the key of the row, so that the delete of the row, which fails
//! alike, removes the letter. It lies at the vnode of the row, where every later change of the row
//! arrives. Rows of streams are never deleted; the letter of one lies at any vnode of its reader's
//! slot.
//!
//! Invariant: the actor that changes state or position because of a row writes the row's letter, to
//! the same slot in the same epoch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};
use bytes::Bytes;
use weir_common::catalog::Entry;
use weir_common::ids::{Sequence, SplitId, TableId, VnodeRange};
use weir_common::key::{Keys, vnode_of};
use weir_common::plan::{Expr, StreamColumn};
use weir_common::types::{SqlType, StructField};
use weir_common::view::{Expression, Functions};
use weir_connector_nats::options::stream_of;
use weir_stream::pipeline::{FailedRow, Failing};

use crate::storage::entries::Entries;
use crate::storage::row::Writer;
use crate::storage::state::keys;

/// The most bytes of an error that the reason of a job has.
const ERROR_BYTES_MAX: usize = 1_000;

/// Turns failing rows of one fragment into changes of the view's dead letters.
pub(crate) struct RowLetters {
    table: TableId,
    schema: SchemaRef,
    fragment: u16,
    place: Place,
    functions: Arc<dyn Functions>,
    /// For each operator, the function that makes a jsonb of its rows.
    shown: HashMap<u16, Shown>,
    changes: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

/// Where letters lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// At this vnode.
    Single(u16),
    /// At the vnodes of their rows or, if these do not have any, at one of these.
    Slot(VnodeRange),
}

/// The part of a row that a letter shows.
struct Shown {
    columns: Vec<usize>,
    fields: Vec<StructField>,
    /// Absent if this version cannot show such a row.
    to_jsonb: Option<Box<dyn Expression>>,
}

impl RowLetters {
    /// The letters of a fragment of an entry's job; `None` if the job keeps none.
    pub(crate) fn new(
        entry: &Entry,
        fragment: u16,
        place: Place,
        functions: &Arc<dyn Functions>,
    ) -> Option<RowLetters> {
        let relation = entry.dead_letters()?;
        Some(RowLetters {
            table: relation.id,
            schema: relation.stored_schema(),
            fragment,
            place,
            functions: Arc::clone(functions),
            shown: HashMap::new(),
            changes: BTreeMap::new(),
            bytes: 0,
        })
    }

    /// Takes rows that one operator leaves out, in the order of their changes.
    pub(crate) fn add(&mut self, operator: u16, failing: &Failing, failed: &[&FailedRow]) {
        let rows: Vec<&RecordBatch> = failed.iter().map(|failed| &failed.row).collect();
        let rows = concat_batches(&rows[0].schema(), rows).expect("rows of one stream");
        let keys = self.keys(operator, failing, &rows);
        let letters = self.letters((operator, failing), (&rows, &keys), failed);
        let writer = Writer::new(&letters, letters.num_columns(), 0);
        for (row, (failed, key)) in failed.iter().zip(&keys).enumerate() {
            let mut stored = Vec::new();
            let vnode = self.vnode(failing, &failed.row, key);
            keys::write_row_key(self.table, vnode, key, &mut stored);
            let letter = (!failed.is_delete).then(|| {
                let mut letter = Vec::new();
                writer.write(row, 0, &mut letter);
                Bytes::from(letter)
            });
            self.bytes += stored.len() + letter.as_ref().map_or(0, Bytes::len);
            self.changes.insert(stored.into(), letter);
        }
    }

    /// The keys of the letters of rows.
    fn keys(&self, operator: u16, failing: &Failing, rows: &RecordBatch) -> Vec<Vec<u8>> {
        let keys = Keys::new(rows, &failing.key);
        let key = |row| {
            let mut key = [self.fragment.to_be_bytes(), operator.to_be_bytes()].concat();
            keys.write(row, &mut key);
            key
        };
        (0..rows.num_rows()).map(key).collect()
    }

    fn vnode(&self, failing: &Failing, row: &RecordBatch, key: &[u8]) -> u16 {
        match (self.place, &failing.divided) {
            (Place::Single(vnode), _) => vnode,
            (Place::Slot(_), Some(columns)) => {
                let mut divided = Vec::new();
                Keys::new(row, columns).write(0, &mut divided);
                vnode_of(&divided)
            }
            (Place::Slot(vnodes), None) => vnodes.start + vnode_of(key) % (vnodes.end - vnodes.start),
        }
    }

    /// The letters of rows.
    fn letters(
        &mut self,
        (operator, failing): (u16, &Failing),
        (rows, keys): (&RecordBatch, &[Vec<u8>]),
        failed: &[&FailedRow],
    ) -> RecordBatch {
        let functions = self.functions.as_ref();
        let shown = self.shown.entry(operator).or_insert_with(|| Shown::new(failing, functions));
        let (streams, sequences) = origins(failing, rows);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_micros()).expect("a time fits into 63 bits");
        let text = |of: &dyn Fn(&FailedRow) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(failed.iter().map(|failed| of(failed))))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(streams),
            Arc::new(sequences),
            Arc::new(shown.texts(rows)),
            text(&|failed| failed.error.message.clone()),
            text(&|failed| failed.error.sqlstate.to_string()),
            text(&|_| failing.operator.clone()),
            Arc::new(TimestampMicrosecondArray::from_value(now, failed.len()).with_timezone("UTC")),
            Arc::new(BinaryArray::from_iter_values(keys)),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("the columns of dead letters")
    }

    /// Bytes of the changes since the last [`RowLetters::take`].
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest change of each letter.
    pub(crate) fn take(&mut self) -> Entries {
        self.bytes = 0;
        std::mem::take(&mut self.changes).into_iter().collect()
    }
}

impl Shown {
    fn new(failing: &Failing, functions: &dyn Functions) -> Shown {
        // Columns that a view has only to tell rows apart say nothing to people.
        let is_shown = |place: &usize| !(failing.key.contains(place) && failing.columns[*place].name.starts_with('_'));
        let columns: Vec<usize> = (0..failing.columns.len()).filter(is_shown).collect();
        let field = |place: &usize| {
            let StreamColumn { name, ty } = failing.columns[*place].clone();
            StructField { name, ty }
        };
        let fields: Vec<StructField> = columns.iter().map(field).collect();
        let row = StreamColumn { name: "row".to_owned(), ty: SqlType::Struct(fields.clone()) };
        let (function, arguments) = ("to_jsonb".to_owned(), vec![Expr::Column(0)]);
        let call = Expr::Call { function, revision: 1, arguments, ty: SqlType::Jsonb };
        Shown { columns, fields, to_jsonb: functions.build(&call, &[row]).ok() }
    }

    /// Rows as jsonb; NULL where one cannot be shown.
    fn texts(&self, rows: &RecordBatch) -> StringArray {
        let count = rows.num_rows();
        if self.columns.is_empty() {
            return StringArray::from_iter_values(std::iter::repeat_n("{}", count));
        }
        let made = || {
            let values = self.columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
            let values = StructArray::try_new(StructField::arrow(&self.fields), values, None).ok()?;
            let row = SqlType::Struct(self.fields.clone()).field("row");
            let schema = Arc::new(arrow::datatypes::Schema::new(vec![row]));
            let rows = RecordBatch::try_new(schema, vec![Arc::new(values)]).ok()?;
            self.to_jsonb.as_ref()?.evaluate(&rows).ok()
        };
        match made() {
            Some(texts) => texts.as_string::<i32>().clone(),
            None => StringArray::new_null(count),
        }
    }
}

/// The reason why a row fails, with the message that it comes from and the operator. An error may
/// quote a value of any length; the reason has a part of it.
pub(super) fn reason(failing: &Failing, failed: &FailedRow) -> String {
    let (streams, sequences) = origins(failing, &failed.row);
    let (error, operator) = (failed.error.message.as_str(), &failing.operator);
    let shown = &error[..error.floor_char_boundary(ERROR_BYTES_MAX)];
    let more = if shown.len() < error.len() { "…" } else { "" };
    let place = match streams.is_valid(0) {
        true => format!("message {} of stream \"{}\": ", sequences.value(0), streams.value(0)),
        false => String::new(),
    };
    format!("{place}{shown}{more}, in {operator}")
}

/// The streams and the sequences that rows come from, if their keys say so.
fn origins(failing: &Failing, rows: &RecordBatch) -> (StringArray, Int64Array) {
    let name = |place: &usize| failing.columns[*place].name.as_str();
    let places = failing.key.windows(2).filter(|pair| (name(&pair[0]), name(&pair[1])) == ("_split", "_sequence"));
    let columns: Vec<(&StringArray, &Int64Array)> = places
        .filter_map(|pair| {
            let (split, sequence) = (rows.column(pair[0]), rows.column(pair[1]));
            Some((split.as_string_opt::<i32>()?, sequence.as_primitive_opt::<Int64Type>()?))
        })
        .collect();
    let origin = |row: usize| {
        // A row of a UNION comes from one of several.
        let (split, sequence) = columns.iter().find(|(split, _)| split.is_valid(row))?;
        let stream = stream_of(&SplitId(split.value(row).to_owned())).to_owned();
        let sequence = Sequence(sequence.value(row).cast_unsigned()).in_stream();
        Some((stream, i64::try_from(sequence).expect("a place in a stream fits into 52 bits")))
    };
    let (streams, sequences): (Vec<_>, Vec<_>) = (0..rows.num_rows()).map(origin).map(Option::unzip).unzip();
    (streams.into(), sequences.into())
}
