//! One value of a row, by the physical layout of its Arrow type, so that a new SQL type of a known
//! layout needs nothing here.
//!
//! | layout | bytes |
//! | --- | --- |
//! | fixed width: numbers, dates, times, intervals | the value as Arrow holds it, little-endian |
//! | boolean | 0 or 1 |
//! | text and bytes | their length, u32 in little-endian, then the bytes |
//! | list | the number of elements, u32 in little-endian, then each element |
//! | struct | each field |
//!
//! An element or field is a byte, 1 if it is NULL; otherwise the byte is 0 and the value follows.

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, NullBufferBuilder, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};

use super::error::Error;

const _: () = assert!(cfg!(target_endian = "little"), "values are stored as they lie in memory");

/// The values of a column, prepared for writing one by one.
pub enum Cells {
    /// Values of one width.
    Fixed {
        /// The values, from the first one on.
        values: Buffer,
        /// The width in bytes.
        width: usize,
        /// Marks NULLs.
        nulls: Option<NullBuffer>,
    },
    /// Booleans.
    Boolean(BooleanArray),
    /// Text or bytes.
    Variable {
        /// The bounds of the values.
        offsets: OffsetBuffer<i32>,
        /// All values.
        values: Buffer,
        /// Marks NULLs.
        nulls: Option<NullBuffer>,
    },
    /// Lists.
    List {
        /// The bounds of the lists.
        offsets: OffsetBuffer<i32>,
        /// The elements of all lists.
        elements: Box<Cells>,
        /// Marks NULLs.
        nulls: Option<NullBuffer>,
    },
    /// Structs.
    Struct {
        /// Their fields.
        fields: Vec<Cells>,
        /// Marks NULLs.
        nulls: Option<NullBuffer>,
    },
}

impl Cells {
    /// # Panics
    /// If the array has a type that is not stored.
    pub fn new(array: &ArrayRef) -> Cells {
        let nulls = array.nulls().cloned();
        match array.data_type() {
            DataType::Boolean => Cells::Boolean(array.as_boolean().clone()),
            DataType::Utf8 => {
                let array = array.as_string::<i32>();
                Cells::Variable { offsets: array.offsets().clone(), values: array.values().clone(), nulls }
            }
            DataType::Binary => {
                let array = array.as_binary::<i32>();
                Cells::Variable { offsets: array.offsets().clone(), values: array.values().clone(), nulls }
            }
            DataType::List(_) => {
                let array = array.as_list::<i32>();
                let elements = Box::new(Cells::new(array.values()));
                Cells::List { offsets: array.offsets().clone(), elements, nulls }
            }
            DataType::Struct(_) => {
                Cells::Struct { fields: array.as_struct().columns().iter().map(Cells::new).collect(), nulls }
            }
            fixed => {
                let width = width(fixed);
                let data = array.to_data();
                let values = data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width);
                Cells::Fixed { values, width, nulls }
            }
        }
    }

    /// Returns true if a value is NULL.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Cells::Boolean(array) => array.is_null(row),
            Cells::Fixed { nulls, .. }
            | Cells::Variable { nulls, .. }
            | Cells::List { nulls, .. }
            | Cells::Struct { nulls, .. } => nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)),
        }
    }

    /// Appends a value that is not NULL.
    #[inline]
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Cells::Fixed { values, width, .. } => out.extend_from_slice(&values[row * width..(row + 1) * width]),
            Cells::Boolean(array) => out.push(u8::from(array.value(row))),
            Cells::Variable { offsets, values, .. } => {
                let bytes = &values[offsets[row].as_usize()..offsets[row + 1].as_usize()];
                write_length(bytes.len(), out);
                out.extend_from_slice(bytes);
            }
            Cells::List { offsets, elements, .. } => {
                let elements_at = offsets[row].as_usize()..offsets[row + 1].as_usize();
                write_length(elements_at.len(), out);
                elements_at.for_each(|element| elements.write_nullable(element, out));
            }
            Cells::Struct { fields, .. } => fields.iter().for_each(|field| field.write_nullable(row, out)),
        }
    }

    fn write_nullable(&self, row: usize, out: &mut Vec<u8>) {
        let null = self.is_null(row);
        out.push(u8::from(null));
        if !null {
            self.write(row, out);
        }
    }
}

/// The width in bytes of a type of fixed width.
fn width(ty: &DataType) -> usize {
    ty.primitive_width().unwrap_or_else(|| panic!("values of type {ty} are not stored"))
}

fn write_length(length: usize, out: &mut Vec<u8>) {
    let length = u32::try_from(length).expect("a value is smaller than 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
}

/// The bytes of a row that are left to read.
pub struct Input<'a> {
    rest: &'a [u8],
}

const CUT_SHORT: Error = Error::Damaged { reason: "cut short" };

impl<'a> Input<'a> {
    /// Starts at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn length(&mut self) -> Result<usize, Error> {
        let (length, rest) = self.rest.split_first_chunk().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*length) as usize)
    }

    #[inline]
    fn flag(&mut self) -> Result<bool, Error> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Error::Damaged { reason: "a flag is neither 0 nor 1" }),
        }
    }

    /// # Errors
    /// If bytes are left.
    pub fn finish(&self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::Damaged { reason: "longer than its columns" }) }
    }
}

/// A column under construction.
pub struct Builder {
    ty: DataType,
    nulls: NullBufferBuilder,
    values: Values,
}

enum Values {
    Fixed { bytes: Vec<u8>, width: usize },
    Boolean(BooleanBufferBuilder),
    Variable { offsets: Vec<i32>, bytes: Vec<u8> },
    List { offsets: Vec<i32>, elements: Box<Builder> },
    Struct { fields: Vec<Builder> },
}

impl Builder {
    /// Creates an empty column.
    ///
    /// # Panics
    /// If the type is not stored.
    pub fn new(ty: &DataType) -> Builder {
        let values = match ty {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Utf8 | DataType::Binary => Values::Variable { offsets: vec![0], bytes: Vec::new() },
            DataType::List(element) => {
                Values::List { offsets: vec![0], elements: Box::new(Builder::new(element.data_type())) }
            }
            DataType::Struct(fields) => {
                Values::Struct { fields: fields.iter().map(|field| Builder::new(field.data_type())).collect() }
            }
            fixed => Values::Fixed { bytes: Vec::new(), width: width(fixed) },
        };
        Builder { ty: ty.clone(), nulls: NullBufferBuilder::new(0), values }
    }

    /// Appends NULL.
    pub fn append_null(&mut self) {
        self.nulls.append_null();
        match &mut self.values {
            Values::Fixed { bytes, width } => bytes.resize(bytes.len() + *width, 0),
            Values::Boolean(values) => values.append(false),
            Values::Variable { offsets, .. } | Values::List { offsets, .. } => {
                offsets.push(*offsets.last().expect("there is one more than values"));
            }
            Values::Struct { fields } => fields.iter_mut().for_each(Builder::append_null),
        }
    }

    /// Appends the next value.
    ///
    /// # Errors
    /// If the input does not begin with such a value.
    #[inline]
    pub fn append(&mut self, input: &mut Input<'_>) -> Result<(), Error> {
        self.nulls.append_non_null();
        match &mut self.values {
            Values::Fixed { bytes, width } => bytes.extend_from_slice(input.take(*width)?),
            Values::Boolean(values) => values.append(input.flag()?),
            Values::Variable { offsets, bytes } => {
                let length = input.length()?;
                bytes.extend_from_slice(input.take(length)?);
                offsets.push(offset(bytes.len())?);
            }
            Values::List { offsets, elements } => {
                for _ in 0..input.length()? {
                    elements.append_nullable(input)?;
                }
                offsets.push(offset(elements.nulls.len())?);
            }
            Values::Struct { fields } => {
                for field in fields {
                    field.append_nullable(input)?;
                }
            }
        }
        Ok(())
    }

    fn append_nullable(&mut self, input: &mut Input<'_>) -> Result<(), Error> {
        if input.flag()? {
            self.append_null();
            Ok(())
        } else {
            self.append(input)
        }
    }

    /// Passes over the next value.
    ///
    /// # Errors
    /// If the input does not begin with such a value.
    #[inline]
    pub fn pass(&self, input: &mut Input<'_>) -> Result<(), Error> {
        match &self.values {
            Values::Fixed { width, .. } => input.take(*width).map(drop),
            Values::Boolean(_) => input.flag().map(drop),
            Values::Variable { .. } => {
                let length = input.length()?;
                input.take(length).map(drop)
            }
            Values::List { elements, .. } => {
                for _ in 0..input.length()? {
                    elements.pass_nullable(input)?;
                }
                Ok(())
            }
            Values::Struct { fields } => fields.iter().try_for_each(|field| field.pass_nullable(input)),
        }
    }

    fn pass_nullable(&self, input: &mut Input<'_>) -> Result<(), Error> {
        if input.flag()? { Ok(()) } else { self.pass(input) }
    }

    /// Returns the values since the last call.
    ///
    /// # Errors
    /// If they are not values of the type.
    pub fn finish(&mut self) -> Result<ArrayRef, Error> {
        let length = self.nulls.len();
        let nulls = self.nulls.finish();
        let data = ArrayData::builder(self.ty.clone()).len(length).nulls(nulls);
        let data = match &mut self.values {
            Values::Fixed { bytes, .. } => data.add_buffer(Buffer::from_vec(take(bytes))),
            Values::Boolean(values) => data.add_buffer(BooleanBuffer::into_inner(values.finish())),
            Values::Variable { offsets, bytes } => {
                let bytes = Buffer::from_vec(take(bytes));
                data.add_buffer(Buffer::from_vec(std::mem::replace(offsets, vec![0]))).add_buffer(bytes)
            }
            Values::List { offsets, elements } => {
                let elements = elements.finish()?.to_data();
                data.add_buffer(Buffer::from_vec(std::mem::replace(offsets, vec![0]))).add_child_data(elements)
            }
            Values::Struct { fields } => {
                let fields: Vec<_> = fields.iter_mut().map(Builder::finish).collect::<Result<_, _>>()?;
                data.child_data(fields.iter().map(Array::to_data).collect())
            }
        };
        // Fixed widths need an alignment that a vector of bytes may not have.
        Ok(make_array(data.align_buffers(true).build()?))
    }
}

/// Takes the bytes that a column has gathered. The next batch is likely to be as large.
fn take(bytes: &mut Vec<u8>) -> Vec<u8> {
    let capacity = bytes.len();
    std::mem::replace(bytes, Vec::with_capacity(capacity))
}

fn offset(length: usize) -> Result<i32, Error> {
    i32::try_from(length).map_err(|_| Error::Damaged { reason: "a batch is larger than 2 GiB" })
}
