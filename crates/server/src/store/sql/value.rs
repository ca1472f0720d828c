//! Value, store floor: what is bound to a statement and read from a row, in either engine.
//!
//! Promises: a whole number, a text and bytes come back as they were bound.
//! Never: rounds; takes one shape for another.

use std::error::Error as StdError;

use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, private::BytesMut};

use super::{SqlError, SqlResult};

/// What a value is of, also where it is NULL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Shape {
    Bool,
    Int,
    Text,
    Blob,
}

impl Shape {
    /// The type that PostgreSQL is told; `None`: the statement decides, since truth is kept as a number and compared as
    /// such, but may be a condition too.
    const fn postgres_type(self) -> Option<Type> {
        match self {
            Self::Bool => None,
            Self::Int => Some(Type::INT8),
            Self::Text => Some(Type::TEXT),
            Self::Blob => Some(Type::BYTEA),
        }
    }
}

/// One value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(in crate::store) enum Cell<'a> {
    Null(Shape),
    /// Kept as 0 or 1.
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl Cell<'_> {
    pub(in crate::store) const fn postgres_type(self) -> Option<Type> {
        let shape = match self {
            Self::Null(shape) => shape,
            Self::Bool(_) => Shape::Bool,
            Self::Int(_) => Shape::Int,
            Self::Text(_) => Shape::Text,
            Self::Blob(_) => Shape::Blob,
        };
        shape.postgres_type()
    }
}

impl rusqlite::ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null(_) => ValueRef::Null,
            Self::Bool(value) => ValueRef::Integer(i64::from(value)),
            Self::Int(value) => ValueRef::Integer(value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(
        &self,
        wanted: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match *self {
            Self::Null(_) => Ok(IsNull::Yes),
            Self::Bool(value) if *wanted == Type::BOOL => value.to_sql(wanted, out),
            Self::Bool(value) if *wanted == Type::INT8 => i64::from(value).to_sql(wanted, out),
            Self::Bool(value) if *wanted == Type::INT4 => i32::from(value).to_sql(wanted, out),
            Self::Int(value) if *wanted == Type::INT8 => value.to_sql(wanted, out),
            Self::Text(value) if *wanted == Type::TEXT => value.to_sql(wanted, out),
            Self::Blob(value) if *wanted == Type::BYTEA => value.to_sql(wanted, out),
            _ => Err(format!("{wanted} is not what the statement binds").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

/// What can be bound.
pub(in crate::store) trait ToCell {
    fn to_cell(&self) -> Cell<'_>;
}

impl<T: ToCell + ?Sized> ToCell for &T {
    fn to_cell(&self) -> Cell<'_> {
        (**self).to_cell()
    }
}

/// Whatever may be NULL has a shape all the same.
pub(in crate::store) trait Shaped {
    const SHAPE: Shape;
}

impl<T: Shaped + ?Sized> Shaped for &T {
    const SHAPE: Shape = T::SHAPE;
}

impl<T: ToCell + Shaped> ToCell for Option<T> {
    fn to_cell(&self) -> Cell<'_> {
        self.as_ref().map_or(Cell::Null(T::SHAPE), ToCell::to_cell)
    }
}

macro_rules! shapes {
    ($($kind:ty: $shape:ident),+) => {$(
        impl Shaped for $kind {
            const SHAPE: Shape = Shape::$shape;
        }
    )+};
}
shapes! {
    bool: Bool, i64: Int, i32: Int, u32: Int, u16: Int, str: Text, String: Text, [u8]: Blob, Vec<u8>: Blob
}

impl ToCell for bool {
    fn to_cell(&self) -> Cell<'_> {
        Cell::Bool(*self)
    }
}

macro_rules! whole {
    ($($kind:ty)+) => {$(
        impl ToCell for $kind {
            fn to_cell(&self) -> Cell<'_> {
                Cell::Int(i64::from(*self))
            }
        }

        impl FromCell for $kind {
            fn from_cell(cell: Cell<'_>) -> Option<Self> {
                if let Cell::Int(value) = cell { Self::try_from(value).ok() } else { None }
            }
        }
    )+};
}
whole! { i64 i32 u32 u16 }

impl ToCell for str {
    fn to_cell(&self) -> Cell<'_> {
        Cell::Text(self)
    }
}

impl ToCell for String {
    fn to_cell(&self) -> Cell<'_> {
        Cell::Text(self)
    }
}

impl ToCell for [u8] {
    fn to_cell(&self) -> Cell<'_> {
        Cell::Blob(self)
    }
}

impl ToCell for Vec<u8> {
    fn to_cell(&self) -> Cell<'_> {
        Cell::Blob(self)
    }
}

impl<const LEN: usize> ToCell for [u8; LEN] {
    fn to_cell(&self) -> Cell<'_> {
        Cell::Blob(self)
    }
}

/// What can be read; `None` where the value is of another shape.
pub(in crate::store) trait FromCell: Sized {
    fn from_cell(cell: Cell<'_>) -> Option<Self>;
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        if matches!(cell, Cell::Null(_)) { Some(None) } else { T::from_cell(cell).map(Some) }
    }
}

impl FromCell for bool {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Bool(value) => Some(value),
            Cell::Int(value) => Some(value != 0),
            _ => None,
        }
    }
}

impl FromCell for String {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        if let Cell::Text(value) = cell { Some(value.to_owned()) } else { None }
    }
}

impl FromCell for Vec<u8> {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        if let Cell::Blob(value) = cell { Some(value.to_owned()) } else { None }
    }
}

impl<const LEN: usize> FromCell for [u8; LEN] {
    fn from_cell(cell: Cell<'_>) -> Option<Self> {
        if let Cell::Blob(value) = cell { value.try_into().ok() } else { None }
    }
}

/// Text that is none, and numbers with a fraction, are no value of the store.
pub(super) fn of_sqlite(value: ValueRef<'_>) -> Option<Cell<'_>> {
    Some(match value {
        ValueRef::Null => Cell::Null(Shape::Text),
        ValueRef::Integer(value) => Cell::Int(value),
        ValueRef::Text(text) => Cell::Text(str::from_utf8(text).ok()?),
        ValueRef::Blob(value) => Cell::Blob(value),
        ValueRef::Real(_) => return None,
    })
}

/// The values of a row of that many columns.
pub(in crate::store) fn cells_of_sqlite<'r>(
    row: &'r rusqlite::Row<'_>,
    columns: usize,
) -> SqlResult<Vec<Cell<'r>>> {
    let cell = |at| {
        let value = row.get_ref(at).map_err(SqlError::Sqlite)?;
        of_sqlite(value).ok_or_else(|| SqlError::column(at, "it is no value of a store"))
    };
    (0..columns).map(cell).collect()
}

/// A value of a PostgreSQL row. Sums come as `numeric` and are read as whole numbers.
pub(in crate::store) struct OfPostgres<'a>(pub(in crate::store) Cell<'a>);

impl<'a> FromSql<'a> for OfPostgres<'a> {
    fn from_sql(
        kind: &Type,
        raw: &'a [u8],
    ) -> std::result::Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(match *kind {
            Type::BOOL => Cell::Bool(bool::from_sql(kind, raw)?),
            Type::INT8 => Cell::Int(i64::from_sql(kind, raw)?),
            Type::INT4 => Cell::Int(i32::from_sql(kind, raw)?.into()),
            Type::BYTEA => Cell::Blob(raw),
            Type::NUMERIC => Cell::Int(whole_numeric(raw).ok_or("no whole number of 64 bits")?),
            _ => Cell::Text(str::from_utf8(raw)?),
        }))
    }

    fn from_sql_null(_: &Type) -> std::result::Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(Cell::Null(Shape::Text)))
    }

    fn accepts(kind: &Type) -> bool {
        let known = [Type::BOOL, Type::INT8, Type::INT4, Type::BYTEA, Type::NUMERIC, Type::TEXT];
        known.contains(kind) || [Type::VARCHAR, Type::NAME, Type::UNKNOWN].contains(kind)
    }
}

/// A `numeric` without a fraction, as PostgreSQL sends it: how many digits to the base 10,000, the weight of the first,
/// sign, scale, digits; each two bytes.
fn whole_numeric(raw: &[u8]) -> Option<i64> {
    let (words, []) = raw.as_chunks::<2>() else { return None };
    let mut words = words.iter().map(|word| i16::from_be_bytes(*word));
    let (count, weight, sign, _scale) =
        (words.next()?, words.next()?, words.next()?, words.next()?);
    let mut value: i64 = 0;
    for place in 0..=i32::from(weight) {
        let digit = if place < i32::from(count) { words.next()? } else { 0 };
        value = value.checked_mul(10_000)?.checked_add(digit.into())?;
    }
    let no_fraction = words.all(|digit| digit == 0);
    match sign {
        _ if !no_fraction => None,
        0 => Some(value),
        0x4000 => value.checked_neg(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(words: &[i16]) -> Option<i64> {
        whole_numeric(&words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn a_sum_is_read_whole_or_not_at_all() {
        assert_eq!(numeric(&[0, 0, 0, 0]), Some(0));
        assert_eq!(numeric(&[1, 0, 0, 0, 7]), Some(7));
        assert_eq!(numeric(&[2, 1, 0, 0, 12, 3456]), Some(123_456));
        assert_eq!(numeric(&[1, 2, 0, 0, 5]), Some(500_000_000), "zeros at the end are not sent");
        assert_eq!(numeric(&[1, 0, 0x4000, 0, 7]), Some(-7));
        assert_eq!(numeric(&[2, 0, 0, 1, 7, 5000]), None, "a fraction");
        assert_eq!(numeric(&[5, 4, 0, 0, 9999, 9999, 9999, 9999, 9999]), None, "above 64 bits");
        assert_eq!(numeric(&[0, 0, i16::from_be_bytes([0xC0, 0]), 0]), None, "not a number");
        assert_eq!(whole_numeric(&[0]), None);
    }
}
