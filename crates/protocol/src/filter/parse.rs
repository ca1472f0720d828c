//! Parser: words first, then recursive descent with a bound on depth, length and literals.
//!
//! Promises: time and stack are bounded by the limits; every refusal says where and what.
//! Never: guesses; what is not in the grammar is refused.

use super::{Comparison, Expr, Literal, Operand};
use crate::{
    error::{Code, Error, Result},
    limits,
    names::{ColumnName, TableName},
    value::push_decimal,
};

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Word(String),
    Text(String),
    Number(String),
    Dot,
    Comma,
    Open,
    Close,
    Op(Comparison),
}

pub(super) fn parse(text: &str, table: &TableName, columns: &[ColumnName]) -> Result<Expr> {
    if text.len() > limits::FILTER_BYTES {
        let words = format!("{} bytes, at most {} are allowed", text.len(), limits::FILTER_BYTES);
        return Err(Error::new(Code::FilterRefused, words));
    }
    let tokens = Lexer { chars: text.chars().collect(), at: 0 }.tokens()?;
    let mut parser =
        Parser { tokens, at: 0, literals: 0, end: text.chars().count(), table, columns };
    let root = parser.disjunction(0)?;
    match parser.peek() {
        None => Ok(root),
        Some(_) => Err(parser.refuse("nothing more, or AND or OR")),
    }
}

fn refused(position: usize, words: impl std::fmt::Display) -> Error {
    Error::new(Code::FilterRefused, format!("position {}: {words}", position + 1))
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn tokens(mut self) -> Result<Vec<(Token, usize)>> {
        let mut tokens = Vec::new();
        while let Some(sign) = self.peek(0) {
            let start = self.at;
            match sign {
                ' ' | '\t' | '\r' | '\n' => self.at += 1,
                _ => {
                    let token = self.token(sign)?;
                    tokens.push((token, start));
                }
            }
        }
        Ok(tokens)
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn token(&mut self, sign: char) -> Result<Token> {
        let next = self.peek(1);
        let digit_next = next.is_some_and(|c| c.is_ascii_digit());
        let (token, length) = match (sign, next) {
            ('\'', _) => return self.string(),
            ('<', Some('>')) | ('!', Some('=')) => (Token::Op(Comparison::NotEqual), 2),
            ('<', Some('=')) => (Token::Op(Comparison::LessOrEqual), 2),
            ('>', Some('=')) => (Token::Op(Comparison::GreaterOrEqual), 2),
            ('<', _) => (Token::Op(Comparison::Less), 1),
            ('>', _) => (Token::Op(Comparison::Greater), 1),
            ('=', _) => (Token::Op(Comparison::Equal), 1),
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            (',', _) => (Token::Comma, 1),
            ('0'..='9', _) => return self.number(),
            ('-' | '+', Some('.')) => return self.number(),
            ('-' | '+' | '.', _) if digit_next => return self.number(),
            ('.', _) => (Token::Dot, 1),
            _ if sign.is_ascii_alphabetic() || sign == '_' => return Ok(self.word()),
            _ => return Err(refused(self.at, format_args!("{sign:?} is no sign of a filter"))),
        };
        self.at += length;
        Ok(token)
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '#');
        while self.peek(0).is_some_and(inside) {
            self.at += 1;
        }
        Token::Word(self.slice(start))
    }

    fn slice(&self, start: usize) -> String {
        self.chars.get(start..self.at).unwrap_or_default().iter().collect()
    }

    fn number(&mut self) -> Result<Token> {
        let start = self.at;
        self.at += 1;
        while self.peek(0).is_some_and(|c| c.is_ascii_digit() || c == '.') {
            self.at += 1;
        }
        let glued = self.peek(0).is_some_and(|c| c.is_alphanumeric() || c == '_');
        let mut canonical = String::new();
        if glued || !push_decimal(&mut canonical, &self.slice(start)) {
            return Err(refused(start, "not a number in plain notation"));
        }
        Ok(Token::Number(canonical))
    }

    fn string(&mut self) -> Result<Token> {
        let start = self.at;
        let mut text = String::new();
        loop {
            self.at += 1;
            match (self.peek(0), self.peek(1)) {
                (Some('\''), Some('\'')) => {
                    self.at += 1;
                    text.push('\'');
                }
                (Some('\''), _) => break,
                (Some(sign), _) if sign.is_control() => {
                    return Err(refused(self.at, "a control character in a string"));
                }
                (Some(sign), _) => text.push(sign),
                (None, _) => return Err(refused(start, "a string without its closing quote")),
            }
        }
        self.at += 1;
        Ok(Token::Text(text))
    }
}

struct Parser<'a> {
    tokens: Vec<(Token, usize)>,
    at: usize,
    literals: usize,
    end: usize,
    table: &'a TableName,
    columns: &'a [ColumnName],
}

const RESERVED: [&str; 8] = ["and", "or", "not", "in", "is", "like", "between", "null"];

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn position(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(_, position)| *position)
    }

    fn refuse(&self, expected: &str) -> Error {
        refused(self.position(), format_args!("expected {expected}"))
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token, words: &str) -> Result<()> {
        if self.take(token) { Ok(()) } else { Err(self.refuse(words)) }
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found =
            matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn deeper(&self, depth: usize) -> Result<usize> {
        if depth < limits::FILTER_DEPTH {
            return Ok(depth + 1);
        }
        let words = format!("nested deeper than {} levels", limits::FILTER_DEPTH);
        Err(refused(self.position(), words))
    }

    fn disjunction(&mut self, depth: usize) -> Result<Expr> {
        let first = self.conjunction(depth)?;
        let mut parts = Vec::new();
        while self.keyword("or") {
            parts.push(self.conjunction(depth)?);
        }
        Ok(joined(first, parts, Expr::Or))
    }

    fn conjunction(&mut self, depth: usize) -> Result<Expr> {
        let first = self.negation(depth)?;
        let mut parts = Vec::new();
        while self.keyword("and") {
            parts.push(self.negation(depth)?);
        }
        Ok(joined(first, parts, Expr::And))
    }

    fn negation(&mut self, depth: usize) -> Result<Expr> {
        if self.keyword("not") {
            let inner = self.negation(self.deeper(depth)?)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        if self.take(&Token::Open) {
            let inner = self.disjunction(self.deeper(depth)?)?;
            self.expect(&Token::Close, "a closing parenthesis")?;
            return Ok(inner);
        }
        self.predicate()
    }

    fn predicate(&mut self) -> Result<Expr> {
        let start = self.position();
        let left = self.operand()?;
        if let Some(Token::Op(op)) = self.peek() {
            let op = *op;
            self.at += 1;
            let right = self.operand()?;
            if matches!((&left, &right), (Operand::Literal(_), Operand::Literal(_))) {
                return Err(refused(start, "two literals are compared, and no column"));
            }
            return Ok(Expr::Compare { left, op, right });
        }
        let Operand::Column(column) = left else {
            return Err(self.refuse("a comparison"));
        };
        if self.keyword("is") {
            let negated = self.keyword("not");
            return if self.keyword("null") {
                Ok(Expr::IsNull { column, negated })
            } else {
                Err(self.refuse("NULL"))
            };
        }
        let negated = self.keyword("not");
        self.set_predicate(column, negated)
    }

    fn set_predicate(&mut self, column: ColumnName, negated: bool) -> Result<Expr> {
        if self.keyword("between") {
            let low = self.operand()?;
            if !self.keyword("and") {
                return Err(self.refuse("AND and the upper end"));
            }
            return Ok(Expr::Between { column, negated, low, high: self.operand()? });
        }
        if self.keyword("like") {
            return match self.literal()? {
                Some(Literal::Text(pattern)) => Ok(Expr::Like { column, negated, pattern }),
                _ => Err(self.refuse("a string after LIKE")),
            };
        }
        if !self.keyword("in") {
            return Err(self.refuse("a comparison, BETWEEN, IN, LIKE or IS NULL"));
        }
        self.expect(&Token::Open, "an opening parenthesis")?;
        let mut list = Vec::new();
        loop {
            match self.literal()? {
                Some(literal) => list.push(literal),
                None => return Err(self.refuse("a literal")),
            }
            if !self.take(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::Close, "a comma or a closing parenthesis")?;
        Ok(Expr::In { column, negated, list })
    }

    fn operand(&mut self) -> Result<Operand> {
        if let Some(literal) = self.literal()? {
            return Ok(Operand::Literal(literal));
        }
        let start = self.position();
        let first = self.name("a column or a literal")?;
        if !self.take(&Token::Dot) {
            return self.column(&first, start).map(Operand::Column);
        }
        if !self.table.as_str().eq_ignore_ascii_case(&first) {
            return Err(refused(start, format_args!("this filter is for table {}", self.table)));
        }
        let start = self.position();
        let column = self.name("a column")?;
        self.column(&column, start).map(Operand::Column)
    }

    fn name(&mut self, expected: &str) -> Result<String> {
        match self.peek() {
            Some(Token::Word(word)) if !RESERVED.contains(&word.to_ascii_lowercase().as_str()) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.refuse(expected)),
        }
    }

    fn column(&self, name: &str, position: usize) -> Result<ColumnName> {
        let found = self.columns.iter().find(|column| column.as_str().eq_ignore_ascii_case(name));
        found.cloned().ok_or_else(|| {
            refused(position, format_args!("table {} has no column {name:?}", self.table))
        })
    }

    fn literal(&mut self) -> Result<Option<Literal>> {
        let literal = match self.peek() {
            Some(Token::Text(text)) => Literal::Text(text.clone()),
            Some(Token::Number(text)) => Literal::Number(text.clone()),
            _ => return Ok(None),
        };
        self.literals += 1;
        if self.literals > limits::FILTER_LITERALS {
            let words = format!("more than {} literals", limits::FILTER_LITERALS);
            return Err(refused(self.position(), words));
        }
        self.at += 1;
        Ok(Some(literal))
    }
}

fn joined(first: Expr, mut rest: Vec<Expr>, make: fn(Vec<Expr>) -> Expr) -> Expr {
    if rest.is_empty() {
        return first;
    }
    rest.insert(0, first);
    make(rest)
}
