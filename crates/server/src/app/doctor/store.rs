//! What of a server's store is looked at: schema, key, what it tells of clock and signing key; and of a database who may do
//! what in it, and how it is reached.
//!
//! Promises: a database is waited for no longer than the patience of whoever asks.
//! Never: shows a password; changes anything.

use std::{path::Path, time::Duration};

use protocol::{Code, Error};
use runtime::{
    backup,
    clock::Wall,
    files,
    finding::{Finding, both, words},
    postgres::Address,
};

use super::{CLOCK, KEY, MAIL, SIGNING_KEY, STORE, VERSION};
use crate::{
    config::ServerConfig,
    model::alert::MailServer,
    service::access,
    store::{
        Site,
        look::{Database, Held},
        sqlite::State,
    },
};

/// What a look at the store tells of.
pub(super) const TOPICS: [&str; 6] = [STORE, KEY, CLOCK, SIGNING_KEY, MAIL, VERSION];

/// A key that signs for longer should get a successor.
const OLD_KEY: Duration = Duration::from_secs(365 * 86_400);
/// Clocks that differ by less are alike.
const ALIKE: Duration = Duration::from_secs(60);

/// Findings, and the mail server that the store names.
pub(super) async fn looked(
    config: &ServerConfig,
    patience: Duration,
) -> (Vec<Finding>, Option<MailServer>) {
    // What is wrong with the configuration is told with it.
    let Ok(site) = config.site() else { return (Vec::new(), None) };
    let place = site.to_string();
    if let Err(error) = backup::refuse_pending(&config.data) {
        return (vec![Finding::error(STORE, &place, &error)], None);
    }
    let mut found = Vec::new();
    if let Site::Postgres(address) = &site {
        found.extend(way(config, address));
        found.extend(left_behind(&config.store_file()));
    }
    let look = match site.look(patience).await {
        Ok(look) => look,
        Err(error) => {
            found.push(unread(&site, &error));
            return (found, None);
        }
    };
    found.extend(look.database.iter().flat_map(|database| rights(&place, database)));
    found.extend(schema(&site, look.state));
    let Some(held) = look.held else { return (found, None) };
    found.extend(content(config, &place, &held));
    (found, held.mail)
}

/// A database names itself in its errors.
fn unread(site: &Site, error: &Error) -> Finding {
    let place = site.to_string();
    let Site::Postgres(_) = site else { return Finding::error(STORE, place, error) };
    let said = error.message.strip_prefix(&format!("{place}: ")).unwrap_or(&error.message);
    let todo = words(
        "Look at store.url, store.password_file and store.ca_file, at the database's log, and at the network between.",
        "Confira store.url, store.password_file e store.ca_file, o log do banco e a rede até ele.",
    );
    Finding::mend(STORE, place, (both(said), todo)).coded(error.code)
}

/// What has to be done before the schema is this program's.
fn schema(site: &Site, state: State) -> Option<Finding> {
    let place = site.to_string();
    let of_version =
        |words: String| Finding::error(STORE, &place, &Error::new(Code::StoreVersion, words));
    let not_ours =
        |found| of_version(format!("it has schema {found}, which is not this program's"));
    let todo = |en, pt| Some(words(en, pt));
    match (site, state) {
        (_, State::Current) => None,
        (Site::File(_), State::Empty) => {
            let new = words("it is made at the first start", "será criado no primeiro início");
            Some(Finding::note(STORE, &place, new))
        }
        (Site::Postgres(_), State::Empty) => Some(Finding {
            todo: todo(
                "Run malote server migrate; then malote server copy-store, where a store in a file is to move into it.",
                "Execute malote server migrate; depois malote server copy-store, se um armazenamento em arquivo vai para ele.",
            ),
            found: words("there is no schema in it yet", "ainda não há schema nele"),
            ..of_version(String::new())
        }),
        (_, State::Behind { found }) => Some(Finding {
            todo: todo(
                "Make a backup, stop the server and run malote server migrate.",
                "Faça um backup, pare o servidor e execute malote server migrate.",
            ),
            ..not_ours(found)
        }),
        (_, State::Ahead { found }) => Some(not_ours(found)),
    }
}

/// What a store with this program's schema tells.
fn content(config: &ServerConfig, place: &str, held: &Held) -> Vec<Finding> {
    let (streams, size) = (held.streams, held.bytes >> 20);
    let told = words(
        format!("its schema is current, {streams} streams, {size} MiB"),
        format!("o schema está atualizado, {streams} fluxos, {size} MiB"),
    );
    let mut found = vec![Finding::ok(STORE, place, told), clock(held.newest, Wall::now())];
    found.extend(held.signing_key_at.map(|made| signing_key(made, Wall::now())));
    let place = config.data.join("master.key");
    found.push(match access::fits(&config.data, &held.keys) {
        Ok(()) => {
            let good =
                words("it opens what the store has sealed", "abre o que o armazenamento selou");
            Finding::ok(KEY, place.display(), good)
        }
        Err(error) => Finding::error(KEY, place.display(), &error),
    });
    found
}

/// How a database is reached, and with which password.
fn way(config: &ServerConfig, address: &Address) -> Vec<Finding> {
    let mut found = vec![if address.is_encrypted() {
        let good = words(
            "the connection is encrypted, and the database's certificate is checked",
            "a conexão é cifrada, e o certificado do banco é conferido",
        );
        Finding::ok(STORE, "store.url", good)
    } else if address.is_near() {
        let near = words(
            "the connection is not encrypted; it does not leave this machine",
            "a conexão não é cifrada; ela não sai desta máquina",
        );
        Finding::note(STORE, "store.url", near)
    } else {
        let open = words(
            "rows and ids go over the network unencrypted, and nobody checks which database answers",
            "linhas e ids passam pela rede sem cifra, e ninguém confere qual banco responde",
        );
        let todo = words(
            "Add ?sslmode=verify-full to store.url; name a private authority in store.ca_file.",
            "Acrescente ?sslmode=verify-full a store.url; indique uma autoridade privada em store.ca_file.",
        );
        Finding::warning(STORE, "store.url", (open, todo))
    }];
    let file = config.store.password_file.as_deref();
    found.extend(file.and_then(|file| {
        let (mode, place) = (files::open_to_others(file)?, file.display());
        let open = words(
            format!("others may read the password (mode {mode:o})"),
            format!("outros podem ler a senha (modo {mode:o})"),
        );
        let todo = both(format!("chmod 600 {place}"));
        Some(Finding::warning(STORE, place, (open, todo)))
    }));
    found
}

/// The file of before, which a server would go on with if `store.url` were taken away.
fn left_behind(file: &Path) -> Option<Finding> {
    file.exists().then(|| {
        let unused = words(
            "it is not used: the store is in a database",
            "não é usado: o armazenamento está em um banco",
        );
        let todo = words(
            "If malote server copy-store has taken it over, put it away.",
            "Se o malote server copy-store já o copiou, guarde-o em outro lugar.",
        );
        Finding::note(STORE, file.display(), unused).advised(todo)
    })
}

/// What the role may see, and whether the database takes writes.
fn rights(place: &str, database: &Database) -> Vec<Finding> {
    let Database { version, role, is_above_policies, owns_schema, is_standby } = database;
    let mut found = vec![Finding::ok(VERSION, "database", both(format!("PostgreSQL {version}")))];
    let of = format!("role {role}");
    found.push(if *is_above_policies {
        let open = words(
            "it is a superuser or has BYPASSRLS: row-level security does not keep tenants apart for it",
            "é superusuário ou tem BYPASSRLS: a segurança por linha não separa os tenants para ele",
        );
        let todo = words(
            "Let the server work as a role that is neither and owns nothing: malote server migrate --role NAME, as the owner.",
            "Faça o servidor usar um papel sem nenhum dos dois e que não seja dono de nada: malote server migrate --role NOME, como dono.",
        );
        Finding::warning(STORE, of, (open, todo))
    } else if *owns_schema {
        let kept = words(
            "row-level security holds for it, but it owns the schema and so could lift it",
            "a segurança por linha vale para ele, mas ele é dono do schema e poderia desligá-la",
        );
        let todo = words(
            "Let the server work as a role that owns nothing: malote server migrate --role NAME, as the owner.",
            "Faça o servidor usar um papel que não seja dono de nada: malote server migrate --role NOME, como dono.",
        );
        Finding::note(STORE, of, kept).advised(todo)
    } else {
        let kept = words(
            "row-level security holds for it: a transaction sees the tenant that it names",
            "a segurança por linha vale para ele: uma transação vê o tenant que indica",
        );
        Finding::ok(STORE, of, kept)
    });
    if *is_standby {
        let standby = words(
            "it is a standby and takes no writes",
            "é uma réplica (standby) e não aceita gravações",
        );
        let todo = words(
            "Name the primary server in store.url, or promote this one.",
            "Indique o servidor primário em store.url, ou promova este.",
        );
        found.push(Finding::mend(STORE, place, (standby, todo)).coded(Code::StoreFailed));
    }
    found
}

/// What was written down cannot be of the future: where it is, the clock went back.
fn clock(newest: Wall, now: Wall) -> Finding {
    let ahead = newest.since(now);
    if ahead < ALIKE {
        let found = words("it does not go behind the store", "não está atrás do armazenamento");
        return Finding::ok(CLOCK, "this machine", found);
    }
    let seconds = ahead.as_secs();
    let found = words(
        format!("the store holds a moment that is {seconds} s ahead of this machine's clock"),
        format!("o armazenamento tem um momento {seconds} s à frente do relógio desta máquina"),
    );
    let todo = words(
        "Set the clock and let it follow a time server (NTP).",
        "Acerte o relógio e faça-o seguir um servidor de tempo (NTP).",
    );
    Finding::warning(CLOCK, "this machine", (found, todo))
}

fn signing_key(made: Wall, now: Wall) -> Finding {
    let age = now.since(made);
    let days = age.as_secs() / 86_400;
    let found = words(format!("it is {days} days old"), format!("tem {days} dias"));
    if age < OLD_KEY {
        return Finding::ok(SIGNING_KEY, "tokens", found);
    }
    let todo = words(
        "Give it a successor: malote server key rotate.",
        "Crie uma sucessora: malote server key rotate.",
    );
    Finding::warning(SIGNING_KEY, "tokens", (found, todo))
}

#[cfg(test)]
mod tests;
