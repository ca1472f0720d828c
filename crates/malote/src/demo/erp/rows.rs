//! Rows: what the small ERP's tables hold, drawn by number and chance.
//!
//! Promises: row `n` of a table has its own key; accents, NULLs, empty texts, blanks, blobs, long texts and many digits
//! all occur. A stamp lies two years or more back.
//! Never: reads a clock.

use rusqlite::types::Value;

use super::chance::Chance;

const NAMES: [&str; 10] = [
    "Açúcar União S.A.",
    "José da Conceição & Irmãos",
    "Comércio d'Água Ltda",
    "São João — Têxtil",
    "Padaria \"Pão Quente\"",
    "ÁGUAS DE LINDÓIA",
    "Ação & Reação ME",
    "Müller Förderbänder",
    "Cooperativa Três Irmãs ☕",
    "O'Brien; DROP TABLE --",
];
const PIECES: [&str; 6] =
    ["café", "maçã", "pão de queijo", "feijão-fradinho", "açaí 1\u{00bd} kg", "guaraná\t2 L"];

/// First second of 2023 and seconds up to the end of 2024.
const FIRST: i64 = 1_672_531_200;
const SPAN: i64 = 2 * 365 * 86_400;

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

fn some(value: Value, chance: &mut Chance) -> Value {
    if chance.one_in(5) { Value::Null } else { value }
}

/// `yyyy-MM-dd HH:mm:ss.SSS`, as SQLite's own functions write it.
fn moment(seconds: i64, millis: i64) -> String {
    let mut iso = String::new();
    protocol::value::push_timestamp(&mut iso, seconds * 1_000_000, false);
    format!("{}.{millis:03}", iso.replace('T', " "))
}

fn stamp(chance: &mut Chance) -> Value {
    // Whole minutes are shared by many rows: groups of equal stamps are the rule in an ERP.
    let seconds = FIRST + chance.below(SPAN / 60) * 60;
    text(moment(seconds, chance.pick(&[0, 0, 0, 250])))
}

fn day(chance: &mut Chance) -> String {
    moment(FIRST + chance.below(SPAN), 0).chars().take(10).collect()
}

fn compact_day(chance: &mut Chance) -> Value {
    if chance.one_in(20) { text("        ") } else { text(day(chance).replace('-', "")) }
}

/// Money with up to four decimals: as an ERP keeps it in SQLite, an integer or a double.
fn money(chance: &mut Chance) -> Value {
    let units = chance.below(2_000_000_000) - 10_000_000;
    #[expect(clippy::cast_precision_loss, reason = "31 bits fit a double")]
    let value = units as f64 / chance.pick(&[100.0, 100.0, 100.0, 10_000.0, 1.0]);
    Value::Real(if value.is_finite() { value } else { 0.0 })
}

fn words(chance: &mut Chance, count: i64) -> String {
    let mut all = String::new();
    for _ in 0..chance.below(count + 1) {
        all.push_str(chance.pick(&PIECES));
        all.push(' ');
    }
    all
}

fn padded(value: impl std::fmt::Display, width: usize) -> Value {
    text(format!("{value:<width$}"))
}

/// Company and row of the `n`-th composite key: three companies share the numbers.
fn company(n: i64) -> (Value, i64) {
    (Value::Integer(n % 3 + 1), n / 3 + 1)
}

pub(super) fn gcoligada(n: i64, chance: &mut Chance) -> Vec<Value> {
    let logo = chance.bytes(64 + usize::try_from(n * 700 % 2_000).unwrap_or(0));
    vec![
        Value::Integer(n + 1),
        text(chance.pick(&NAMES)),
        some(text(format!("{:014}", n * 1_234_567)), chance),
        some(Value::Blob(logo), chance),
        Value::Integer(chance.below(2)),
        stamp(chance),
        stamp(chance),
    ]
}

pub(super) fn fcfo(n: i64, chance: &mut Chance) -> Vec<Value> {
    let (company, number) = company(n);
    let email = text(format!("contato{n}@exemplo.com.br"));
    vec![
        company,
        text(format!("C{number:06}")),
        text(format!("{} {n}", chance.pick(&NAMES))),
        some(text(format!("{:014}", chance.below(100_000_000_000_000))), chance),
        some(email, chance),
        money(chance),
        text(day(chance)),
        stamp(chance),
    ]
}

pub(super) fn tproduto(n: i64, chance: &mut Chance) -> Vec<Value> {
    let (company, number) = company(n);
    #[expect(clippy::cast_precision_loss, reason = "a weight, not an amount")]
    let weight = Value::Real(chance.below(1_000_000) as f64 / 7.0);
    vec![
        company,
        Value::Integer(number),
        text(format!("{} {n}", chance.pick(&PIECES))),
        money(chance),
        some(weight, chance),
        some(text(words(chance, 12)), chance),
    ]
}

pub(super) fn tmov(n: i64, chance: &mut Chance) -> Vec<Value> {
    let (company, number) = company(n);
    vec![
        company,
        Value::Integer(number),
        some(text(format!("C{:06}", chance.below(5_000) + 1)), chance),
        text(chance.pick(&["2.2.01", "2.2.07", "1.1.02"])),
        text(chance.pick(&["A", "F", "C"])),
        text(moment(FIRST + chance.below(SPAN), 0)),
        money(chance),
        some(text(words(chance, 30)), chance),
        stamp(chance),
    ]
}

pub(super) fn titmmov(n: i64, chance: &mut Chance) -> Vec<Value> {
    let (company, number) = company(n / 2);
    vec![
        company,
        Value::Integer(number),
        Value::Integer(n % 2 + 1),
        Value::Integer(chance.below(1_000) + 1),
        money(chance),
        some(money(chance), chance),
        stamp(chance),
    ]
}

pub(super) fn flan(n: i64, chance: &mut Chance) -> Vec<Value> {
    let (company, number) = company(n);
    let paid = text(day(chance));
    vec![
        company,
        // Beyond 32 and beyond 53 bits now and then: keys must not pass through a double.
        Value::Integer(if n % 97 == 5 { (1 << 60) + number } else { number }),
        some(text(format!("C{:06}", chance.below(5_000) + 1)), chance),
        some(text(format!("NF-e {n}/1")), chance),
        money(chance),
        text(day(chance)),
        some(paid, chance),
        Value::Integer(chance.below(3)),
        if chance.one_in(9) { text("") } else { text(words(chance, 8)) },
        stamp(chance),
    ]
}

/// The control columns at the end of every Protheus row: deleted mark, row number, its repetition, stamp.
fn control(n: i64, chance: &mut Chance, stamped: bool) -> Vec<Value> {
    let number = n + 1;
    let deleted = chance.one_in(25);
    let mut columns = vec![
        text(if deleted { "*" } else { " " }),
        Value::Integer(number),
        Value::Integer(if deleted { number } else { 0 }),
    ];
    if stamped {
        // Rows older than the stamp column have none until they change (F11).
        columns.push(if chance.one_in(10) { Value::Null } else { stamp(chance) });
    }
    columns
}

fn branch(n: i64) -> Value {
    padded(format!("D MG 0{}", n % 3 + 1), 8)
}

pub(super) fn sa1(n: i64, chance: &mut Chance) -> Vec<Value> {
    let mut row = vec![
        branch(n),
        padded(format!("{:06}", n / 3), 6),
        text("01"),
        padded(chance.pick(&NAMES), 40),
        padded(format!("{:014}", chance.below(100_000_000_000_000)), 14),
        money(chance),
        some(text(words(chance, 10)), chance),
    ];
    row.append(&mut control(n, chance, true));
    row
}

pub(super) fn se1(n: i64, chance: &mut Chance) -> Vec<Value> {
    let note = chance.bytes(16);
    let mut row = vec![
        branch(n),
        padded("UNI", 3),
        padded(format!("{:09}", n / 9), 9),
        padded(format!("{:02}", n / 3 % 3 + 1), 2),
        padded("NF", 3),
        padded(format!("{:06}", chance.below(5_000)), 6),
        compact_day(chance),
        compact_day(chance),
        money(chance),
        money(chance),
        padded(chance.pick(&PIECES), 40),
        if chance.one_in(50) { Value::Blob(note) } else { Value::Null },
    ];
    row.append(&mut control(n, chance, true));
    row
}

pub(super) fn sd2(n: i64, chance: &mut Chance) -> Vec<Value> {
    let mut row = vec![
        branch(n),
        padded(format!("{:09}", n / 6), 9),
        padded(format!("{:02}", n / 3 % 2 + 1), 2),
        padded(format!("PRD{:05}", chance.below(1_000)), 15),
        money(chance),
        money(chance),
        compact_day(chance),
    ];
    row.append(&mut control(n, chance, true));
    row
}

pub(super) fn ctt(n: i64, chance: &mut Chance) -> Vec<Value> {
    let mut row =
        vec![branch(n), padded(format!("{:09}", n / 3), 9), padded(chance.pick(&PIECES), 40)];
    row.append(&mut control(n, chance, false));
    row
}
