//! Results of aggregates that take the values of a group in an order.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::datatypes::DataType;
use weir_common::key::{self, NULL};
use weir_common::plan::{AggregateCall, StreamColumn};
use weir_common::types::SqlType;

use crate::pipeline::Failure;
use crate::pipeline::cell::{damaged, put_bytes, take_byte, take_bytes};
use crate::pipeline::payload::{Reader, list};
use crate::pipeline::sorted::flip;

/// A value of a group.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// How often it occurs.
    pub(super) count: i64,
    /// The aggregate's arguments.
    pub(super) payload: Box<[u8]>,
}

/// The values of a group, by their keys.
pub(super) type Items = BTreeMap<Box<[u8]>, Item>;

/// How the result comes of the values.
#[derive(Clone, Debug)]
pub(crate) enum Finish {
    /// The first value, told from its key.
    Key { ty: SqlType, descending: bool },
    /// The first value.
    First(SqlType),
    /// All values, as an array of this type.
    Array(SqlType, Repeated),
    /// All values, each but the first behind its delimiter; texts or bytes.
    Joined(SqlType, Repeated),
}

/// The number of times that equal values appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeated {
    All,
    Once,
}

impl Finish {
    /// The one of an aggregate; `None` for an aggregate that takes no values in an order.
    pub(crate) fn new(call: &AggregateCall, input: &[StreamColumn]) -> Option<Finish> {
        let ty = call.ty.clone();
        let repeated = if call.distinct { Repeated::Once } else { Repeated::All };
        Some(match call.function.as_str() {
            "min" => Finish::Key { ty: input[call.arguments[0]].ty.clone(), descending: false },
            "max" => Finish::Key { ty: input[call.arguments[0]].ty.clone(), descending: true },
            "first_value" => Finish::First(ty),
            "array_agg" => Finish::Array(ty, repeated),
            "string_agg" => Finish::Joined(ty, repeated),
            _ => return None,
        })
    }

    /// True if the result depends on all values.
    pub(super) fn takes_all(&self) -> bool {
        matches!(self, Finish::Array(..) | Finish::Joined(..))
    }
}

impl Repeated {
    fn of(self, items: &Items) -> impl Iterator<Item = &Item> {
        let times = move |item: &Item| if self == Repeated::All { usize::try_from(item.count).unwrap_or(0) } else { 1 };
        items.values().flat_map(move |item| std::iter::repeat_n(item, times(item)))
    }
}

/// Results of groups.
pub(super) enum Taken {
    Key { reader: key::Reader, ty: SqlType, descending: bool },
    First(Reader),
    Array { ty: SqlType, repeated: Repeated, elements: Reader, offsets: Vec<usize>, valid: Vec<bool> },
    Joined(Reader, Repeated),
}

impl Taken {
    pub(super) fn new(finish: &Finish) -> Taken {
        match finish {
            Finish::Key { ty, descending } => {
                Taken::Key { reader: key::Reader::new([ty]), ty: ty.clone(), descending: *descending }
            }
            Finish::First(ty) => Taken::First(Reader::new(ty)),
            Finish::Joined(ty, repeated) => Taken::Joined(Reader::new(ty), *repeated),
            Finish::Array(ty, repeated) => {
                let SqlType::Array(element) = ty else { panic!("{ty} is not an array") };
                let (ty, repeated, elements) = (ty.clone(), *repeated, Reader::new(element));
                Taken::Array { ty, repeated, elements, offsets: vec![0], valid: Vec::new() }
            }
        }
    }

    /// Adds the result of a group.
    pub(super) fn push(&mut self, items: &Items) -> Result<(), Failure> {
        match self {
            Taken::Key { reader, descending, .. } => {
                let key = match items.first_key_value() {
                    Some((key, _)) => {
                        let mut key = key.to_vec();
                        if *descending {
                            flip(&mut key);
                        }
                        key
                    }
                    None => vec![NULL],
                };
                reader.push(&key).ok_or_else(damaged)?;
            }
            Taken::First(reader) => match items.values().next() {
                Some(item) => reader.push(&mut &*item.payload)?,
                None => reader.push_null(),
            },
            Taken::Array { repeated, elements, offsets, valid, .. } => {
                repeated.of(items).try_for_each(|item| elements.push(&mut &*item.payload))?;
                offsets.push(elements.len());
                valid.push(!items.is_empty());
            }
            Taken::Joined(reader, _) if items.is_empty() => reader.push_null(),
            Taken::Joined(reader, repeated) => {
                let mut value = vec![1];
                put_bytes(&joined(repeated.of(items))?, &mut value);
                reader.push(&mut value.as_slice())?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<ArrayRef, Failure> {
        match self {
            Taken::Key { mut reader, ty, .. } => {
                Ok(reader.finish().pop().unwrap_or_else(|| new_empty_array(&ty.arrow())))
            }
            Taken::First(reader) | Taken::Joined(reader, _) => reader.finish(),
            Taken::Array { ty, elements, offsets, valid, .. } => {
                let DataType::List(field) = ty.arrow() else { unreachable!("an array is stored as a list") };
                list(field, offsets, elements, valid)
            }
        }
    }
}

/// Puts texts together. The arguments of each row are the text and the delimiter before it.
fn joined<'a>(items: impl Iterator<Item = &'a Item>) -> Result<Vec<u8>, Failure> {
    let mut result = Vec::new();
    for (number, item) in items.enumerate() {
        let mut input = &*item.payload;
        let value = take_text(&mut input)?;
        let delimiter = take_text(&mut input)?;
        result.extend_from_slice(if number > 0 { delimiter } else { &[] });
        result.extend_from_slice(value);
    }
    Ok(result)
}

/// A text, which is empty for NULL.
fn take_text<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Failure> {
    if take_byte(input)? == 0 { Ok(&[]) } else { take_bytes(input) }
}
