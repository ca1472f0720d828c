//! Words: how an alert is told to people, in English and Portuguese.
//!
//! Promises: every rule has its words in both languages; a mail names what, where, since when and what to look at.
//! Never: holds a row's value.

use super::{About, Language, Measure, Notice, Rule, Told};
use crate::model::fleet::Doing;

/// One line: what is wrong and where.
#[must_use]
pub fn line(about: &About, measure: &Measure, environment: Option<&str>, lang: Language) -> String {
    let what = what(about, measure, lang);
    let place: Vec<&str> = environment.into_iter().chain(about.erp.as_deref()).collect();
    let place = if place.is_empty() {
        lang.pick("the server", "o servidor").to_owned()
    } else {
        place.join("/")
    };
    let since = measure.since.map_or_else(String::new, |since| {
        format!(" ({} {})", lang.pick("since", "desde"), since.to_iso())
    });
    let code = measure.code.as_ref().map_or_else(String::new, |code| format!(" [{code}]"));
    format!("{place}: {what}{code}{since}")
}

fn what(about: &About, measure: &Measure, lang: Language) -> String {
    let (amount, table) = (measure.amount, &about.subject);
    match about.rule {
        Rule::AgentDead => {
            lang.pick("no agent is connected", "nenhum agente está conectado").to_owned()
        }
        Rule::BatchIncomplete => lang.pick(
            format!("{amount} batch(es) incomplete, none complete since"),
            format!("{amount} pacote(s) incompleto(s), nenhum completo desde então"),
        ),
        Rule::BatchStalled => lang.pick("a batch has stalled", "um pacote está parado").to_owned(),
        Rule::Differences => lang.pick(
            format!("table {table}: {amount} row(s) differ from the ERP"),
            format!("tabela {table}: {amount} linha(s) diferem do ERP"),
        ),
        Rule::Disk => lang.pick(
            format!("the disk of the data folder has about {amount} MiB left"),
            format!("restam cerca de {amount} MiB no disco da pasta de dados"),
        ),
        Rule::Freshness => stale(table, measure, lang),
        Rule::NotVerified => lang.pick(
            format!("the verification of {amount} table(s) by the timetable came to no end"),
            format!("a verificação agendada de {amount} tabela(s) não chegou ao fim"),
        ),
        Rule::Quarantine => lang.pick(
            format!("{amount} row(s) could not be staged and are in quarantine"),
            format!("{amount} linha(s) não puderam ser gravadas na staging e estão em quarentena"),
        ),
        Rule::StagingBehind => lang
            .pick(
                "what was accepted is not staged yet",
                "o que foi aceito ainda não está na staging",
            )
            .to_owned(),
        Rule::TableParked if table.is_empty() => lang.pick(
            format!("{amount} tables are parked and not read"),
            format!("{amount} tabelas estão paradas e não são lidas"),
        ),
        Rule::TableParked => lang.pick(
            format!("table {table} is parked and not read"),
            format!("a tabela {table} está parada e não é lida"),
        ),
    }
}

/// What is not read, or does not come: a table, so many of a stream, or a stream whose tables nobody reports.
fn stale(table: &str, measure: &Measure, lang: Language) -> String {
    let amount = measure.amount;
    let paused = measure.code.as_deref() == Some(Doing::Paused.as_str());
    match (table, amount) {
        ("", 0) => lang
            .pick("nothing new has come, though it should have", "nada novo chegou, e deveria")
            .to_owned(),
        ("", _) if paused => lang.pick(
            format!("{amount} table(s) paused, and not read for long"),
            format!("{amount} tabela(s) em pausa, sem leitura há muito tempo"),
        ),
        ("", _) => lang.pick(
            format!("{amount} table(s) not read, though the agent is connected"),
            format!("{amount} tabela(s) sem leitura, embora o agente esteja conectado"),
        ),
        _ if paused => lang.pick(
            format!("table {table} is paused, and was not read for {amount} minutes"),
            format!("a tabela {table} está em pausa, sem leitura há {amount} minutos"),
        ),
        // Of a table that is reported it is known since when.
        _ if measure.since.is_some() => lang.pick(
            format!("table {table} was not read for {amount} minutes"),
            format!("a tabela {table} está sem leitura há {amount} minutos"),
        ),
        _ => lang.pick(
            format!("table {table}: nothing has come for {amount} minutes"),
            format!("tabela {table}: nada chegou há {amount} minutos"),
        ),
    }
}

/// What to look at first.
const fn advice(rule: Rule) -> [&'static str; 2] {
    match rule {
        Rule::AgentDead => [
            "See whether the agent runs and reaches the server: malote agent status.",
            "Verifique se o agente está em execução e alcança o servidor: malote agent status.",
        ],
        Rule::BatchIncomplete | Rule::BatchStalled => [
            "See the batches and the agent's log: malote server batches list.",
            "Veja os pacotes e o log do agente: malote server batches list.",
        ],
        Rule::Differences => [
            "Order the table again once the cause is known: malote server reload TABLE.",
            "Peça a tabela de novo quando a causa for conhecida: malote server reload TABELA.",
        ],
        Rule::Disk => [
            "Make room, or shorten what is kept: malote server retention.",
            "Libere espaço ou reduza o que é mantido: malote server retention.",
        ],
        Rule::Freshness => [
            "See the tables, then the agent's status and log: malote server fleet tables, malote agent status.",
            "Veja as tabelas e depois o estado e o log do agente: malote server fleet tables, malote agent status.",
        ],
        Rule::NotVerified => [
            "See which tables and why, then try one: malote server fleet tables --troubled, malote verify TABLE.",
            "Veja quais tabelas e por quê, depois tente uma: malote server fleet tables --troubled, malote verify TABELA.",
        ],
        Rule::Quarantine => [
            "Look at the rows, then try again or give up: malote server quarantine.",
            "Veja as linhas e depois tente de novo ou descarte: malote server quarantine.",
        ],
        Rule::StagingBehind => [
            "See the server's log: what is applied stops at an error, or the machine is too slow.",
            "Veja o log do servidor: a aplicação parou em um erro, ou a máquina está lenta demais.",
        ],
        Rule::TableParked => [
            "The agent tells why and what to do: malote agent status.",
            "O agente diz o motivo e o que fazer: malote agent status.",
        ],
    }
}

const fn head(notice: Notice, lang: Language) -> &'static str {
    match (notice, lang) {
        (Notice::Raised, Language::En) => "ALERT",
        (Notice::Again, Language::En) => "STILL OPEN",
        (Notice::Resolved, Language::En) => "RESOLVED",
        (Notice::Raised, Language::Pt) => "ALERTA",
        (Notice::Again, Language::Pt) => "AINDA ABERTO",
        (Notice::Resolved, Language::Pt) => "RESOLVIDO",
    }
}

/// Subject and text of a mail that tells these, the oldest first.
#[must_use]
pub fn mail(told: &[Told], source: &str, lang: Language) -> (String, String) {
    let of = |told: &Told| line(&told.about, &told.measure, told.environment.as_deref(), lang);
    let subject = match told {
        [one] => format!("[Malote] {}: {}", head(one.notice, lang), of(one)),
        many => lang.pick(
            format!("[Malote] {} notices", many.len()),
            format!("[Malote] {} avisos", many.len()),
        ),
    };
    let mut text = String::new();
    let mut advised = Vec::new();
    for told in told {
        let (at, head) = (told.at.to_iso(), head(told.notice, lang));
        text.push_str(&format!("{at}  {head}\n    {}\n", of(told)));
        if told.notice != Notice::Resolved && !advised.contains(&told.about.rule) {
            advised.push(told.about.rule);
            let [en, pt] = advice(told.about.rule);
            text.push_str(&format!("    {}\n", lang.pick(en, pt)));
        }
        text.push('\n');
    }
    let end = lang.pick(
        "Open alerts: malote server alert list. Acknowledge one, and it is not told again: malote server alert acknowledge.",
        "Alertas abertos: malote server alert list. Reconheça um para não ser avisado de novo: malote server alert acknowledge.",
    );
    text.push_str(&format!("--\nMalote, {source}\n{end}\n"));
    // A subject is one line, whatever a name holds.
    let subject = subject.chars().filter(|sign| !sign.is_control()).take(200).collect();
    (subject, text)
}

/// Subject and text of a mail that somebody ordered to see whether mails arrive.
#[must_use]
pub fn test(source: &str, lang: Language) -> (String, String) {
    let subject = lang.pick("[Malote] test of the alerts", "[Malote] teste dos alertas");
    let text = lang.pick(
        "This mail was ordered with malote server alert test. Alerts reach this address.",
        "Este e-mail foi pedido com malote server alert test. Os alertas chegam a este endereço.",
    );
    (subject.to_owned(), format!("{text}\n\n--\nMalote, {source}\n"))
}

#[cfg(test)]
mod tests {
    use runtime::clock::Wall;

    use super::*;

    fn told(rule: Rule, notice: Notice) -> Told {
        let erp = (rule != Rule::Disk).then(|| "RM".to_owned());
        Told {
            notice,
            at: Wall(1_767_614_400_000_000),
            about: About {
                environment: None,
                erp: erp.clone(),
                rule,
                subject: "FLAN".into(),
                code: None,
            },
            measure: Measure { amount: 3, since: Some(Wall(1_767_614_000_000_000)), code: None },
            environment: erp.map(|_| "prod\r\nBcc: x".into()),
        }
    }

    #[test]
    fn every_rule_is_told_in_both_languages_and_in_words_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for rule in Rule::ALL {
            let lines = [Language::En, Language::Pt].map(|lang| {
                let (subject, text) =
                    mail(&[told(rule, Notice::Raised)], "https://m.example", lang);
                assert!(
                    text.contains("2026-01-05T12:00:00Z") && text.contains("https://m.example")
                );
                subject
            });
            assert_ne!(lines[0], lines[1]);
            seen.extend(lines);
        }
        assert_eq!(seen.len(), 2 * Rule::ALL.len());
    }

    #[test]
    fn a_subject_is_one_line_and_many_notices_are_one_mail() {
        let (subject, _) = mail(&[told(Rule::AgentDead, Notice::Raised)], "s", Language::En);
        assert_eq!(
            subject,
            "[Malote] ALERT: prodBcc: x/RM: no agent is connected (since 2026-01-05T11:53:20Z)"
        );
        let many = [told(Rule::AgentDead, Notice::Raised), told(Rule::AgentDead, Notice::Resolved)];
        let (subject, text) = mail(&many, "s", Language::Pt);
        assert_eq!(subject, "[Malote] 2 avisos");
        assert!(text.contains("ALERTA") && text.contains("RESOLVIDO"), "{text}");
        assert_eq!(text.matches("malote agent status").count(), 1, "advice is given once: {text}");
    }

    #[test]
    fn what_is_paused_and_what_is_told_together_has_words_of_its_own() {
        let line = |rule, subject: &str, amount, code: Option<&str>| {
            let told = told(rule, Notice::Raised);
            let about = About { subject: subject.into(), ..told.about };
            let measure = Measure { amount, code: code.map(str::to_owned), ..told.measure };
            super::line(&about, &measure, None, Language::En)
        };
        let paused = line(Rule::Freshness, "FLAN", 60, Some("PAUSED"));
        assert!(paused.contains("table FLAN is paused, and was not read for 60"), "{paused}");
        let hung = line(Rule::Freshness, "", 2, None);
        assert!(hung.contains("2 table(s) not read, though the agent is connected"), "{hung}");
        let paused = line(Rule::Freshness, "", 2, Some("PAUSED"));
        assert!(paused.contains("2 table(s) paused"), "{paused}");
        let quiet = line(Rule::Freshness, "", 0, None);
        assert!(quiet.contains("nothing new has come"), "{quiet}");
        let parked = line(Rule::TableParked, "", 40, Some("SOURCE_UNREACHABLE"));
        assert!(
            parked.contains("40 tables are parked and not read [SOURCE_UNREACHABLE]"),
            "{parked}"
        );
    }
}
