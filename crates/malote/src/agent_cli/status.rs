//! `malote agent status`: the running agent in words or as JSON.
//!
//! Promises: what a person has to do stands first, in the reader's language; an agent that is not configured has an exit
//! code of its own.
//! Never: shows a value or a key.

use std::collections::BTreeSet;

use agent::{
    admin::{DeletesStatus, IncidentStatus, Status},
    journal::{Answer, LinkState, TableStatus, Verification},
};
use protocol::{Code, Coded as _, Result};
use runtime::exit;
use serde_json::json;

use super::{logs, place, steer};
use crate::{lang::Lang, out, verify_cli::result};

pub(super) fn show(status: &Status, as_json: bool, lang: Lang) -> Result<u8> {
    if as_json {
        let text = serde_json::to_string(status);
        out::data(text.coded(Code::Internal, "cannot print the status")?);
    } else {
        show_words(status, lang);
    }
    Ok(if status.configured { exit::OK } else { exit::UNCONFIGURED })
}

/// What is missing, where to go on, and that a start reads the configuration anew.
fn unconfigured_lines(status: &Status, lang: Lang) -> Vec<String> {
    let head = lang.pick(
        "NOT CONFIGURED: nothing is read and nothing is sent",
        "NÃO CONFIGURADO: nada é lido e nada é enviado",
    );
    let missing = lang.pick("missing", "falta");
    let link = lang.pick("go on at", "continue em");
    let again = lang.pick(
        "complete the configuration and start the agent again; it is read at the start",
        "complete a configuração e inicie o agente de novo; ela é lida no início",
    );
    let mut lines = vec![head.to_owned(), format!("{missing:<12} {}", status.missing.join(", "))];
    lines.extend(status.configurator_url.iter().map(|url| format!("{link:<12} {url}")));
    lines.push(format!("{:<12} {again}", ""));
    lines
}

/// The hint of a code in the reader's language; a code this version does not know has none.
fn hint(code: &str, lang: Lang) -> Option<&'static str> {
    let code: Code = code.parse().ok()?;
    Some(lang.pick(code.hint(), code.hint_pt()))
}

fn next_try(at: &str, lang: Lang) -> String {
    format!(" ({} {at})", lang.pick("next try", "próxima tentativa"))
}

/// The link and what stands in its way.
fn link_lines(link: &LinkState, lang: Lang) -> Vec<String> {
    let phase = serde_json::to_value(link.phase).unwrap_or_default();
    let mut head = format!("link         {}", phase.as_str().unwrap_or_default());
    if link.foreign_server {
        head.push_str(lang.pick(", foreign server mode", ", modo de servidor alheio"));
    }
    let mut lines = vec![head];
    if let Some(since) = link.since_micros {
        let since = runtime::clock::Wall(since).to_iso();
        lines.push(format!("             {} {since}", lang.pick("since", "desde")));
    }
    if let Some(code) = &link.code {
        let next = link.next_try.as_ref();
        let next = next.map(|at| next_try(at, lang)).unwrap_or_default();
        let words = link.words.as_deref().unwrap_or_default();
        lines.push(format!("             {code}: {words}{next}"));
        lines.extend(hint(code, lang).map(|hint| format!("             {hint}")));
    }
    lines
}

/// Deletes above the cap as the status tells them, with the way out.
fn capped_line(deletes: &DeletesStatus, lang: Lang) -> String {
    let DeletesStatus { table, rows, known, since, answer, .. } = deletes;
    let head = lang.pick(
        format!("DELETES_CAPPED: {rows} of {known} rows vanished, since {since}"),
        format!("DELETES_CAPPED: sumiram {rows} de {known} linhas, desde {since}"),
    );
    let tail = match answer {
        Answer::Waiting => format!("malote agent deletes confirm|refuse {table}"),
        Answer::Confirmed => lang.pick("confirmed", "confirmado").to_owned(),
        Answer::Refused => lang.pick("refused, they stay", "recusado, elas ficam").to_owned(),
    };
    format!("{head}: {tail}")
}

pub(super) fn show_deletes(deletes: &[DeletesStatus], as_json: bool, lang: Lang) {
    if as_json {
        out::data(json!({ "deletes": deletes }).to_string());
    } else if deletes.is_empty() {
        out::talk(lang.pick("none", "nenhuma"));
    } else {
        for line in deletes {
            out::data(format!("{:<12} {}", line.table.as_str(), capped_line(line, lang)));
        }
    }
}

/// When the next cycle runs, and since when base loads wait.
fn coming_lines(status: &Status, lang: Lang) -> Vec<String> {
    let run = status.next_run.as_ref();
    let run = run.map(|at| format!("{:<12} {at}", lang.pick("next run", "próximo")));
    let loads = status.loads_from.as_ref().map(|at| {
        let words = lang.pick("base loads wait until", "cargas iniciais esperam até");
        format!("             {words} {at}")
    });
    let slowed = status.slowed.as_ref().map(|slowed| {
        let (percent, since) = (slowed.percent, &slowed.since);
        lang.pick(
            format!("slowed       base loads and scans go at {percent} % since {since}: the ERP database answers slowly"),
            format!("reduzido     cargas e varreduras a {percent} % desde {since}: o banco do ERP responde devagar"),
        )
    });
    run.into_iter().chain(loads).chain(slowed).collect()
}

/// What the columns of the tables' lines are. Sendings count, not rows: one that goes twice counts twice.
fn table_heading(status: &Status, lang: Lang) -> Option<String> {
    if status.tables.is_empty() {
        return None;
    }
    Some(lang.pick(
        format!(
            "\n{:<12} {:<10} {:<13} {:<10} {:<10} {:<10} QUARANTINED (sent and deletes since the agent connected)",
            "TABLE", "STATE", "MODE", "LAG", "SENT", "DELETES"
        ),
        format!(
            "\n{:<12} {:<10} {:<13} {:<10} {:<10} {:<10} QUARENTENA (enviadas e exclusões desde a conexão do agente)",
            "TABELA", "ESTADO", "MODO", "ATRASO", "ENVIADAS", "EXCLUSÕES"
        ),
    ))
}

fn sent_line(table: &TableStatus) -> String {
    let lag = table.lag_ms.map_or_else(|| "-".to_owned(), |lag| format!("{} s", lag / 1_000));
    // The counter holds deletes too: they are rows of the messages.
    let changed = table.rows_sent.saturating_sub(table.deletes_sent);
    format!(
        "{:<12} {:<10} {:<13} {lag:<10} {changed:<10} {:<10} {}",
        table.table.as_str(),
        table.state,
        table.mode,
        table.deletes_sent,
        table.quarantined
    )
}

/// What was left out or went wrong, the newest first; below each code, once, what to do.
fn incident_lines(incidents: &[IncidentStatus], lang: Lang) -> Vec<String> {
    let mut lines = Vec::new();
    if !incidents.is_empty() {
        lines.push(lang.pick("\nINCIDENTS", "\nOCORRÊNCIAS").to_owned());
    }
    let mut told = BTreeSet::new();
    for IncidentStatus { table, key_hash, code, words, at, .. } in incidents {
        // Rows with NULL in their key have one hash, that of nothing.
        let named = key_hash.as_ref().filter(|_| code != Code::KeyIsNull.as_str());
        let key = named.map(|hash| {
            let head: String = hash.chars().take(16).collect();
            format!(" {} {head}…", lang.pick("key", "chave"))
        });
        lines.push(format!(
            "{at} {}{code}: {words}{}",
            place(table.as_ref()),
            key.unwrap_or_default()
        ));
        if told.insert(code)
            && let Some(hint) = hint(code, lang)
        {
            lines.push(format!("             {hint}"));
        }
    }
    lines
}

/// How the last verification of a table ended.
fn verified_line(verified: &Verification, lang: Lang) -> String {
    let at = verified.finished.as_deref().unwrap_or("?");
    let (head, not) = lang.pick(("verified", "not verified"), ("verificada", "não verificada"));
    let part = if verified.part { lang.pick(" (a part)", " (uma parte)") } else { "" };
    match &verified.outcome {
        Some(outcome) => format!("{head} {at}{part}: {}", result(outcome, lang)),
        None => {
            let [code, words] =
                [&verified.code, &verified.words].map(|text| text.as_deref().unwrap_or_default());
            format!("{not} {at}{part}: {code}: {words}")
        }
    }
}

fn show_table(table: &TableStatus, status: &Status, lang: Lang) {
    let (waiting, halts) = (&status.deletes, &status.halts);
    out::data(sent_line(table));
    for words in waiting.iter().filter(|waits| waits.table == table.table) {
        out::data(format!("             {}", capped_line(words, lang)));
    }
    for verified in status.verified.iter().filter(|verified| verified.table == table.table) {
        out::data(format!("             {}", verified_line(verified, lang)));
    }
    if let Some(words) = &table.degraded {
        let code = Code::BoundDegraded;
        out::data(format!("             {code}: {words}"));
        out::data(format!("             {}", lang.pick(code.hint(), code.hint_pt())));
    }
    if let Some(words) = &table.held_by {
        out::data(format!("             {words}"));
    }
    if let Some((code, words)) = &table.parked {
        let next = table.next_try.as_ref();
        let next = next.map(|at| next_try(at, lang)).unwrap_or_default();
        out::data(format!("             {code}: {words}{next}"));
        if let Some(hint) = hint(code, lang) {
            out::data(format!("             {hint}"));
        }
    }
    let halt = halts.iter().find(|halt| halt.table.as_ref() == Some(&table.table));
    if let Some(halt) = halt {
        out::data(format!("             {}", steer::line(halt, lang)));
    } else if let Some(words) =
        table.paused.as_ref().filter(|_| halts.iter().all(|halt| halt.table.is_some()))
    {
        out::data(format!("             {words}"));
    }
}

fn show_words(status: &Status, lang: Lang) {
    if status.configured {
        link_lines(&status.link, lang).iter().for_each(out::data);
    } else {
        unconfigured_lines(status, lang).iter().for_each(out::data);
    }
    if let Some(log) = &status.detailed_log {
        out::data(format!("{:<12} {}", "log", logs::line(log, lang)));
    }
    if let Some(paused) = &status.paused {
        let since = lang.pick("since", "desde");
        out::data(format!("PAUSED {since} {}: {}: {}", paused.since, paused.code, paused.words));
    }
    for line in coming_lines(status, lang) {
        out::data(line);
    }
    for halt in status.halts.iter().filter(|halt| halt.table.is_none()) {
        out::data(format!("PAUSED {}", steer::line(halt, lang)));
    }
    table_heading(status, lang).into_iter().for_each(out::data);
    for table in &status.tables {
        show_table(table, status, lang);
    }
    incident_lines(&status.incidents, lang).into_iter().for_each(out::data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_begins_with_the_link_and_what_to_do_about_it_in_the_readers_language() {
        let text = r#"{"configured":true,"version":"1","instance":"i","link":{"phase":"REFUSED","epoch":null,
            "foreignServer":false,"code":"INVALID_CLIENT","words":"client id or secret is wrong","hint":"x"},
            "spool":{"batch":null,"appended":0,"acked":0,"unackedBytes":0,"sealed":false,"completed":null,"dropped":0},
            "tables":[],"parked":{},"suspects":[],"incidents":[]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        let lines = link_lines(&status.link, Lang::Pt);
        assert_eq!(lines[0], "link         REFUSED");
        assert_eq!(lines[1], "             INVALID_CLIENT: client id or secret is wrong");
        assert_eq!(lines[2].trim(), Code::InvalidClient.hint_pt());
    }

    #[test]
    fn deletes_above_the_cap_are_told_with_number_moment_and_way_out_in_both_languages() {
        let mut deletes = DeletesStatus {
            table: "FLAN".parse().unwrap(),
            rows: 999,
            known: 1_000,
            cap: 500,
            since: "2026-01-02T03:04:05Z".into(),
            answer: Answer::Waiting,
        };
        assert_eq!(
            capped_line(&deletes, Lang::En),
            "DELETES_CAPPED: 999 of 1000 rows vanished, since 2026-01-02T03:04:05Z: malote agent deletes confirm|refuse FLAN"
        );
        deletes.answer = Answer::Refused;
        assert!(capped_line(&deletes, Lang::Pt).ends_with("recusado, elas ficam"));
    }

    #[test]
    fn the_status_says_why_the_agent_does_not_send_and_when_it_tries_next() {
        assert_eq!(link_lines(&LinkState::default(), Lang::En), ["link         CONNECTING"]);
        let link = LinkState {
            code: Some("INSTANCE_TWICE".into()),
            words: Some("w".into()),
            next_try: Some("2026-01-02T03:04:05Z".into()),
            ..LinkState::default()
        };
        let lines = link_lines(&link, Lang::Pt);
        assert_eq!(lines[1].trim(), "INSTANCE_TWICE: w (próxima tentativa 2026-01-02T03:04:05Z)");
        assert!(lines[2].contains("cópias da mesma pasta"), "{lines:?}");
    }

    #[test]
    fn an_agent_that_is_not_configured_says_what_is_missing_and_has_an_exit_code_of_its_own() {
        let text = r#"{"configured":false,"configuratorUrl":"https://malote.example/","missing":["source.url","source.erp"],
            "version":"1","instance":"i","link":{"phase":"CONNECTING","epoch":null,"foreignServer":false,"code":null,"words":null,
            "hint":null},"spool":{"batch":null,"appended":0,"acked":0,"unackedBytes":0,"sealed":false,"completed":null,"dropped":0},
            "tables":[],"parked":{},"suspects":[],"incidents":[]}"#;
        let mut status: Status = serde_json::from_str(text).unwrap();
        let lines = unconfigured_lines(&status, Lang::Pt);
        assert_eq!(lines[0], "NÃO CONFIGURADO: nada é lido e nada é enviado");
        assert_eq!(lines[1], "falta        source.url, source.erp");
        assert_eq!(lines[2], "continue em  https://malote.example/");
        assert!(lines[3].contains("inicie o agente de novo"));
        assert!(unconfigured_lines(&status, Lang::En)[3].contains("start the agent again"));
        assert_eq!(show(&status, true, Lang::En).unwrap(), exit::UNCONFIGURED);
        assert_eq!(show(&status, false, Lang::Pt).unwrap(), exit::UNCONFIGURED);
        status.configured = true;
        assert_eq!(show(&status, false, Lang::En).unwrap(), exit::OK);
    }
}
