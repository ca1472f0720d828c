//! Tests of the filter.

use proptest::prelude::*;

use super::*;
use crate::error::Code;

const COLUMNS: [&str; 8] =
    ["DATAMOVIMENTO", "IDLAN", "CODCOLIGADA", "STATUS", "FKD_DTBAIX", "E1_VALOR", "A", "_B$1"];

fn columns() -> Vec<ColumnName> {
    COLUMNS.iter().map(|name| name.parse().unwrap()).collect()
}

fn parse(text: &str) -> Result<Filter> {
    Filter::parse(text, &"TMOV".parse().unwrap(), &columns())
}

/// One filter a line.
const REAL: &str = include_str!("../../tests/filters/real.txt");
const HOSTILE: &str = include_str!("../../tests/filters/hostile.txt");

#[test]
fn filters_as_the_platform_writes_them_are_taken_and_read_back_from_their_print() {
    assert!(REAL.lines().count() >= 100);
    for text in REAL.lines().chain(["IDLAN\n>\n1"]) {
        let filter = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(parse(&filter.to_string()).unwrap(), filter, "{text}");
    }
}

#[test]
fn hostile_filters_are_refused_with_their_place() {
    let lines: Vec<&str> = HOSTILE.lines().collect();
    assert!(lines.len() >= 300);
    for text in lines {
        let refused = parse(text).expect_err(text);
        assert_eq!(refused.code, Code::FilterRefused, "{text}");
        assert!(refused.message.contains("position "), "{text}: {refused}");
    }
    for text in
        ["STATUS = 'a\0'", "STATUS = 'a\nb'", "\0", "", "IDLAN\u{a0}> 1", "\u{feff}IDLAN > 1"]
    {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn length_depth_and_literals_are_bounded() {
    let deep = |depth: usize| format!("{}A = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&deep(crate::limits::FILTER_DEPTH)).is_ok());
    for bad in [
        deep(crate::limits::FILTER_DEPTH + 1),
        format!("{}A = 1", "NOT ".repeat(500)),
        format!("{}A = 1", "(".repeat(2_000)),
        format!("A IN ({}1)", "1,".repeat(crate::limits::FILTER_LITERALS)),
        format!("STATUS = '{}'", "x".repeat(crate::limits::FILTER_BYTES)),
    ] {
        assert_eq!(parse(&bad).unwrap_err().code, Code::FilterRefused);
    }
    assert!(parse(&format!("A IN ({}1)", "1,".repeat(crate::limits::FILTER_LITERALS - 1))).is_ok());
}

#[test]
fn a_refusal_says_where_and_what() {
    let words = |text: &str| parse(text).unwrap_err().message;
    assert_eq!(words("IDLAN > 1; DROP"), "position 10: ';' is no sign of a filter");
    assert_eq!(words("SENHA = 1"), "position 1: table TMOV has no column \"SENHA\"");
    assert_eq!(words("OTHER.IDLAN = 1"), "position 1: this filter is for table TMOV");
    assert_eq!(words("IDLAN >"), "position 8: expected a column or a literal");
}

#[test]
fn rows_pass_by_three_valued_logic() {
    let row = |name: &ColumnName| match name.as_str() {
        "IDLAN" => Some("10"),
        "E1_VALOR" => Some("1.50"),
        "STATUS" => Some("Ab"),
        _ => None,
    };
    for (text, passes) in [
        ("IDLAN > 9", true),
        ("IDLAN > '9'", false),
        ("E1_VALOR = 1.5", true),
        ("E1_VALOR < -1", false),
        ("A = 1", false),
        ("NOT A = 1", false),
        ("A IS NULL", true),
        ("A = 1 OR IDLAN = 10", true),
        ("A = 1 AND IDLAN = 10", false),
        ("STATUS LIKE 'A_'", true),
        ("STATUS LIKE '%b'", true),
        ("STATUS LIKE 'a%'", false),
        ("A NOT IN (1)", false),
        ("IDLAN NOT IN (1, 2)", true),
        ("IDLAN BETWEEN 10 AND 10", true),
        ("IDLAN NOT BETWEEN 11 AND 12", true),
    ] {
        assert_eq!(parse(text).unwrap().matches(&row), passes, "{text}");
    }
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        "[^\\p{C}]{0,12}".prop_map(Literal::Text),
        (any::<i64>(), 0u32..5).prop_map(|(n, scale)| {
            let mut out = String::new();
            assert!(crate::value::push_decimal(&mut out, &format!("{n}e-{scale}")));
            Literal::Number(out)
        }),
    ]
}

fn column() -> impl Strategy<Value = ColumnName> {
    (0..COLUMNS.len()).prop_map(|at| COLUMNS[at].parse().unwrap())
}

fn leaf() -> impl Strategy<Value = Expr> {
    let op = prop_oneof![
        Just(Comparison::Equal),
        Just(Comparison::NotEqual),
        Just(Comparison::Less),
        Just(Comparison::LessOrEqual),
        Just(Comparison::Greater),
        Just(Comparison::GreaterOrEqual)
    ];
    let side =
        || prop_oneof![literal().prop_map(Operand::Literal), column().prop_map(Operand::Column)];
    prop_oneof![
        (column(), op, side()).prop_map(|(left, op, right)| Expr::Compare {
            left: Operand::Column(left),
            op,
            right
        }),
        (column(), any::<bool>(), side(), side())
            .prop_map(|(column, negated, low, high)| Expr::Between { column, negated, low, high }),
        (column(), any::<bool>(), prop::collection::vec(literal(), 1..4))
            .prop_map(|(column, negated, list)| Expr::In { column, negated, list }),
        (column(), any::<bool>(), "[^\\p{C}]{0,8}")
            .prop_map(|(column, negated, pattern)| Expr::Like { column, negated, pattern }),
        (column(), any::<bool>()).prop_map(|(column, negated)| Expr::IsNull { column, negated }),
    ]
}

fn tree() -> impl Strategy<Value = Expr> {
    leaf().prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #[test]
    fn a_printed_tree_reads_back_the_same(root in tree()) {
        let text = root.to_string();
        prop_assume!(text.len() <= crate::limits::FILTER_BYTES);
        let read = parse(&text).unwrap();
        prop_assert_eq!(read.root(), &root, "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_mix_of_words_makes_the_parser_panic_and_what_is_taken_reads_back(
        words in prop::collection::vec(prop_oneof![
            Just("A"), Just("TMOV"), Just("."), Just("="), Just("("), Just(")"), Just("AND"), Just("OR"), Just("NOT"),
            Just("IN"), Just("1"), Just("'x'"), Just(","), Just("IS"), Just("NULL"), Just("LIKE"), Just("BETWEEN"), Just("<")
        ], 0..12)
    ) {
        if let Ok(filter) = parse(&words.join(" ")) {
            prop_assert_eq!(parse(&filter.to_string()).unwrap(), filter);
        }
    }
}
