//! Dialect: SQL text with bound values, rendered from trees and catalogue names alone.
//!
//! Promises: identifiers are the catalogue's and quoted; every literal is a bound parameter (F68).
//! Never: holds a byte of a received filter, takes locks or weakens isolation (F13).

use protocol::{
    Code, Error, Result,
    filter::{Expr, Filter, Literal, Operand},
    names::ColumnName,
};

use super::{ColumnSource, TableShape};

/// `"name"`, good for PostgreSQL and SQLite.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."table"`.
pub(super) fn quoted_table(schema: Option<&str>, table: &str) -> String {
    match schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(table)),
        None => quoted(table),
    }
}

/// How a database spells what dialects differ in.
pub(super) trait Dialect {
    /// Binds a literal for a comparison with that physical column and gives its place in the text.
    fn bind(&mut self, literal: &Literal, column: Option<&str>) -> Result<String>;

    /// `column LIKE pattern` where nothing escapes `%` and `_` and case counts.
    fn like(&mut self, column: &str, pattern: &str) -> String;
}

/// A filter as a condition over that table.
pub(super) fn render(
    filter: &Filter,
    shape: &TableShape,
    dialect: &mut impl Dialect,
) -> Result<String> {
    expr(filter.root(), shape, dialect)
}

fn expr(node: &Expr, shape: &TableShape, dialect: &mut impl Dialect) -> Result<String> {
    let not = |negated: &bool| if *negated { "NOT " } else { "" };
    Ok(match node {
        Expr::And(parts) => all(parts, " AND ", shape, dialect)?,
        Expr::Or(parts) => all(parts, " OR ", shape, dialect)?,
        Expr::Not(inner) => format!("NOT ({})", expr(inner, shape, dialect)?),
        Expr::Compare { left, op, right } => {
            let column = column_of(left, shape)?.or(column_of(right, shape)?);
            let left = operand(left, column, shape, dialect)?;
            let right = operand(right, column, shape, dialect)?;
            format!("{left} {} {right}", op.as_str())
        }
        Expr::Between { column, negated, low, high } => {
            let column = physical(column, shape)?;
            let low = operand(low, Some(column), shape, dialect)?;
            let high = operand(high, Some(column), shape, dialect)?;
            format!("({} {}BETWEEN {low} AND {high})", quoted(column), not(negated))
        }
        Expr::In { column, negated, list } => {
            let column = physical(column, shape)?;
            let list: Result<Vec<_>> =
                list.iter().map(|literal| dialect.bind(literal, Some(column))).collect();
            format!("{} {}IN ({})", quoted(column), not(negated), list?.join(", "))
        }
        Expr::Like { column, negated, pattern } => {
            let like = dialect.like(physical(column, shape)?, pattern);
            format!("{}({like})", not(negated))
        }
        Expr::IsNull { column, negated } => {
            format!("{} IS {}NULL", quoted(physical(column, shape)?), not(negated))
        }
    })
}

fn all(
    parts: &[Expr],
    between: &str,
    shape: &TableShape,
    dialect: &mut impl Dialect,
) -> Result<String> {
    let parts: Result<Vec<_>> = parts.iter().map(|part| expr(part, shape, dialect)).collect();
    Ok(format!("({})", parts?.join(between)))
}

fn operand(
    side: &Operand,
    other: Option<&str>,
    shape: &TableShape,
    dialect: &mut impl Dialect,
) -> Result<String> {
    match side {
        Operand::Column(column) => physical(column, shape).map(quoted),
        Operand::Literal(literal) => dialect.bind(literal, other),
    }
}

fn column_of<'s>(side: &Operand, shape: &'s TableShape) -> Result<Option<&'s str>> {
    match side {
        Operand::Column(column) => physical(column, shape).map(Some),
        Operand::Literal(_) => Ok(None),
    }
}

/// The physical column behind a wire column; the columns that a profile adds are not in the database.
fn physical<'s>(name: &ColumnName, shape: &'s TableShape) -> Result<&'s str> {
    let column = shape.columns.iter().find(|column| column.name == *name);
    match column.map(|column| &column.from) {
        Some(ColumnSource::Physical(physical)) => Ok(physical),
        _ => Err(Error::new(
            Code::FilterRefused,
            format!("column {name} is not in the database's table {}", shape.wire),
        )),
    }
}
