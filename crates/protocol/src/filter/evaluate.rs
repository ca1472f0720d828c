//! Evaluation in memory over canonical texts, in SQL's three-valued logic.
//!
//! Promises: decimals of any length compare exactly.
//! Never: is the reason for leaving a row out of what a database read.

use std::cmp::Ordering;

use super::{Comparison, Expr, Literal, Operand};
use crate::{names::ColumnName, value::push_decimal};

/// SQL's truth values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    const fn of(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }

    const fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
        }
    }

    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::True, Self::True) => Self::True,
            _ => Self::Unknown,
        }
    }

    const fn turned(self, negated: bool) -> Self {
        if negated { self.not() } else { self }
    }
}

type Cells<'a, 'b> = &'b dyn Fn(&ColumnName) -> Option<&'a str>;

pub(super) fn truth<'a>(expr: &Expr, cell: Cells<'a, '_>) -> Truth {
    match expr {
        Expr::And(parts) => {
            parts.iter().map(|part| truth(part, cell)).fold(Truth::True, Truth::and)
        }
        Expr::Or(parts) => {
            let none = parts.iter().map(|part| truth(part, cell).not());
            none.fold(Truth::True, Truth::and).not()
        }
        Expr::Not(inner) => truth(inner, cell).not(),
        Expr::Compare { left, op, right } => compare(left, *op, right, cell),
        Expr::Between { column, negated, low, high } => {
            let value = Operand::Column(column.clone());
            let above = compare(&value, Comparison::GreaterOrEqual, low, cell);
            let below = compare(&value, Comparison::LessOrEqual, high, cell);
            above.and(below).turned(*negated)
        }
        Expr::In { column, negated, list } => {
            let value = Operand::Column(column.clone());
            let differs = |literal: &Literal| {
                compare(&value, Comparison::NotEqual, &Operand::Literal(literal.clone()), cell)
            };
            list.iter().map(differs).fold(Truth::True, Truth::and).not().turned(*negated)
        }
        Expr::Like { column, negated, pattern } => match cell(column) {
            None => Truth::Unknown,
            Some(text) => Truth::of(like(text, pattern)).turned(*negated),
        },
        Expr::IsNull { column, negated } => Truth::of(cell(column).is_none()).turned(*negated),
    }
}

fn compare<'a>(left: &Operand, op: Comparison, right: &Operand, cell: Cells<'a, '_>) -> Truth {
    let numeric =
        [left, right].into_iter().any(|side| matches!(side, Operand::Literal(Literal::Number(_))));
    let (Some(left), Some(right)) = (text_of(left, cell), text_of(right, cell)) else {
        return Truth::Unknown;
    };
    let order = match numeric.then(|| (decimal(left), decimal(right))) {
        Some((Some(left), Some(right))) => decimal_order(&left, &right),
        _ => left.cmp(right),
    };
    Truth::of(match op {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

fn text_of<'t, 'a: 't>(operand: &'t Operand, cell: Cells<'a, '_>) -> Option<&'t str> {
    match operand {
        Operand::Column(column) => cell(column),
        Operand::Literal(literal) => Some(literal.as_str()),
    }
}

fn decimal(text: &str) -> Option<String> {
    let mut canonical = String::new();
    push_decimal(&mut canonical, text).then_some(canonical)
}

/// Order of canonical decimals: sign, length of the whole part, digits.
fn decimal_order(left: &str, right: &str) -> Ordering {
    let (left_negative, right_negative) = (left.starts_with('-'), right.starts_with('-'));
    match (left_negative, right_negative) {
        (true, false) => return Ordering::Less,
        (false, true) => return Ordering::Greater,
        _ => {}
    }
    let parts = |text: &str| {
        let text = text.trim_start_matches('-');
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        (whole.to_owned(), fraction.trim_end_matches('0').to_owned())
    };
    let ((left_whole, left_rest), (right_whole, right_rest)) = (parts(left), parts(right));
    let order = left_whole.len().cmp(&right_whole.len());
    let order = order.then_with(|| left_whole.cmp(&right_whole));
    let order = order.then_with(|| left_rest.cmp(&right_rest));
    if left_negative { order.reverse() } else { order }
}

/// `LIKE` with `%` and `_`, in time bounded by text length times pattern length.
fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut reached = vec![false; text.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    for sign in pattern.chars() {
        let mut next = vec![false; reached.len()];
        let mut any = false;
        for (at, here) in reached.iter().enumerate() {
            any |= *here;
            let fits = text.get(at).is_some_and(|c| sign == '_' || *c == sign);
            if sign == '%' {
                if let Some(slot) = next.get_mut(at) {
                    *slot = any;
                }
            } else if *here
                && fits
                && let Some(slot) = next.get_mut(at + 1)
            {
                *slot = true;
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}
