//! `min` and `max` where nothing is deleted: the best value so far. Kept: a byte, 1 if there is
//! one, and then the value, as bytes or in its fixed width.
//!
//! A float that is not a number is greater than all others, as in PostgreSQL.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, PrimitiveArray, StringArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type,
    Int32Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType, i256,
};
use weir_common::types::SqlType;

use super::{Accumulate, Keep, Rows, mistyped};
use crate::pipeline::Failure;
use crate::pipeline::cell::{Fixed, damaged, put_bytes, take_byte, take_bytes};
use crate::pipeline::evict::{bytes_of, retain};
use crate::pipeline::groups::Group;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Least,
    Greatest,
}

/// The accumulator of a type; `None` for types that it does not compare.
pub(super) fn extreme(kind: Kind, ty: &SqlType) -> Option<Box<dyn Accumulate>> {
    fn fixed<T: ArrowPrimitiveType + Debug>(kind: Kind, ty: DataType) -> Box<dyn Accumulate>
    where
        T::Native: Fixed + Ranked,
    {
        Box::new(Numbers::<T> { kind, ty, best: Vec::new(), known: Vec::new() })
    }
    let arrow = ty.arrow();
    Some(match ty {
        SqlType::SmallInt => fixed::<Int16Type>(kind, arrow),
        SqlType::Integer => fixed::<Int32Type>(kind, arrow),
        SqlType::BigInt => fixed::<Int64Type>(kind, arrow),
        SqlType::Real => fixed::<Float32Type>(kind, arrow),
        SqlType::Double => fixed::<Float64Type>(kind, arrow),
        SqlType::Date => fixed::<Date32Type>(kind, arrow),
        SqlType::Time => fixed::<Time64MicrosecondType>(kind, arrow),
        SqlType::Timestamp | SqlType::Timestamptz => fixed::<TimestampMicrosecondType>(kind, arrow),
        SqlType::Numeric | SqlType::Decimal { .. } => match arrow {
            DataType::Decimal128(..) => fixed::<Decimal128Type>(kind, arrow),
            _ => fixed::<Decimal256Type>(kind, arrow),
        },
        SqlType::Varchar | SqlType::Bytea => Box::new(Texts { kind, ty: arrow, best: Vec::new() }),
        SqlType::Boolean | SqlType::Interval | SqlType::Jsonb | SqlType::Array(_) | SqlType::Struct(_) => return None,
    })
}

/// Values with PostgreSQL's order.
trait Ranked: Copy {
    fn is_less(self, other: Self) -> bool;
}

macro_rules! ranked {
    ($($native:ty),*) => {$(
        impl Ranked for $native {
            fn is_less(self, other: $native) -> bool {
                self < other
            }
        }
    )*};
}

ranked!(i16, i32, i64, i128, i256);

impl Ranked for f32 {
    fn is_less(self, other: f32) -> bool {
        self < other || (other.is_nan() && !self.is_nan())
    }
}

impl Ranked for f64 {
    fn is_less(self, other: f64) -> bool {
        self < other || (other.is_nan() && !self.is_nan())
    }
}

/// Values of a fixed width.
#[derive(Debug)]
struct Numbers<T: ArrowPrimitiveType + Debug> {
    kind: Kind,
    ty: DataType,
    best: Vec<T::Native>,
    /// False for groups without a value.
    known: Vec<bool>,
}

impl<T: ArrowPrimitiveType + Debug> Numbers<T>
where
    T::Native: Fixed + Ranked,
{
    fn add(&mut self, group: usize, value: T::Native) {
        let best = self.best[group];
        let is_better = match self.kind {
            Kind::Least => value.is_less(best),
            Kind::Greatest => best.is_less(value),
        };
        if is_better || !self.known[group] {
            self.best[group] = value;
            self.known[group] = true;
        }
    }
}

impl<T: ArrowPrimitiveType + Debug> Keep for Numbers<T>
where
    T::Native: Fixed + Ranked,
{
    fn resize(&mut self, groups: usize) {
        self.best.resize(groups, T::Native::default());
        self.known.resize(groups, false);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        Ok(self.column(groups))
    }

    fn put(&self, group: Group, out: &mut Vec<u8>) {
        let group = group as usize;
        out.push(self.known[group].into());
        if self.known[group] {
            self.best[group].put(out);
        }
    }

    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        if is_known(input)? {
            self.add(group as usize, Fixed::take(input)?);
        }
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.best, kept);
        retain(&mut self.known, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.best) + bytes_of(&self.known)
    }
}

impl<T: ArrowPrimitiveType + Debug> Accumulate for Numbers<T>
where
    T::Native: Fixed + Ranked,
{
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure> {
        let values = arguments[0].as_primitive_opt::<T>().ok_or_else(|| mistyped(arguments[0]))?.values();
        assert!(rows.deletes.is_none(), "nothing is deleted");
        rows.each(|row, group, _| self.add(group, values[row]));
        Ok(())
    }

    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure> {
        let values = partial[0].as_primitive_opt::<T>().ok_or_else(|| mistyped(&partial[0]))?;
        for (group, value) in groups.iter().zip(values) {
            value.into_iter().for_each(|value| self.add(*group as usize, value));
        }
        Ok(())
    }

    fn take_partial(&mut self, groups: &[Group], _rest: &mut [bool]) -> Vec<ArrayRef> {
        let results = self.column(groups);
        groups.iter().for_each(|group| self.known[*group as usize] = false);
        vec![results]
    }
}

impl<T: ArrowPrimitiveType + Debug> Numbers<T> {
    fn column(&self, groups: &[Group]) -> ArrayRef {
        let best = |group: &Group| self.known[*group as usize].then(|| self.best[*group as usize]);
        Arc::new(groups.iter().map(best).collect::<PrimitiveArray<T>>().with_data_type(self.ty.clone()))
    }
}

/// Texts and bytes, which are compared byte by byte.
#[derive(Debug)]
struct Texts {
    kind: Kind,
    ty: DataType,
    best: Vec<Option<Box<[u8]>>>,
}

impl Texts {
    fn add(&mut self, group: usize, value: &[u8]) {
        let best = &mut self.best[group];
        let is_better = best.as_ref().is_none_or(|best| match self.kind {
            Kind::Least => *value < **best,
            Kind::Greatest => *value > **best,
        });
        if is_better {
            *best = Some(value.into());
        }
    }

    fn column(&self, groups: &[Group]) -> ArrayRef {
        let best = groups.iter().map(|group| self.best[*group as usize].as_deref());
        match self.ty {
            DataType::Utf8 => {
                let text = |bytes| std::str::from_utf8(bytes).expect("a text stays one");
                Arc::new(best.map(|best| best.map(text)).collect::<StringArray>())
            }
            _ => Arc::new(best.collect::<BinaryArray>()),
        }
    }
}

impl Keep for Texts {
    fn resize(&mut self, groups: usize) {
        self.best.resize(groups, None);
    }

    fn results(&self, groups: &[Group]) -> Result<ArrayRef, Failure> {
        Ok(self.column(groups))
    }

    fn put(&self, group: Group, out: &mut Vec<u8>) {
        let best = &self.best[group as usize];
        out.push(best.is_some().into());
        best.iter().for_each(|best| put_bytes(best, out));
    }

    fn take(&mut self, group: Group, input: &mut &[u8]) -> Result<(), Failure> {
        if is_known(input)? {
            let bytes = take_bytes(input)?;
            if self.ty == DataType::Utf8 && std::str::from_utf8(bytes).is_err() {
                return Err(damaged());
            }
            self.add(group as usize, bytes);
        }
        Ok(())
    }

    fn retain(&mut self, kept: &[Group]) {
        retain(&mut self.best, kept);
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.best) + self.best.iter().flatten().map(|best| best.len()).sum::<usize>()
    }
}

impl Accumulate for Texts {
    fn update(&mut self, rows: Rows<'_>, arguments: &[&ArrayRef]) -> Result<(), Failure> {
        assert!(rows.deletes.is_none(), "nothing is deleted");
        let column = arguments[0];
        if let Some(texts) = column.as_string_opt::<i32>() {
            rows.each(|row, group, _| self.add(group, texts.value(row).as_bytes()));
        } else {
            let bytes = column.as_binary_opt::<i32>().ok_or_else(|| mistyped(column))?;
            rows.each(|row, group, _| self.add(group, bytes.value(row)));
        }
        Ok(())
    }

    fn merge(&mut self, groups: &[Group], partial: &[ArrayRef]) -> Result<(), Failure> {
        let counted = partial[0].nulls().map(|nulls| nulls.inner());
        self.update(Rows { groups, deletes: None, counted }, &[&partial[0]])
    }

    fn take_partial(&mut self, groups: &[Group], _rest: &mut [bool]) -> Vec<ArrayRef> {
        let results = self.column(groups);
        groups.iter().for_each(|group| self.best[*group as usize] = None);
        vec![results]
    }
}

fn is_known(input: &mut &[u8]) -> Result<bool, Failure> {
    match take_byte(input)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(damaged()),
    }
}
