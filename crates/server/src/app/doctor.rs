//! Doctor: looks over what a server stands on: configuration, data folder, key, store, disk, ports, addresses,
//! certificates, clock, webhooks, mail server, signing keys.
//!
//! Promises: works without a running server and beside one; each finding that is worse than a note says what to do; every
//! key of the configuration that cannot be used is told, not the first alone.
//! Never: changes anything; opens the store to write; sends a mail.

use std::{
    fmt::Display,
    fs::{self, File, TryLockError},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use protocol::{Code, Error, Result, limits};
use runtime::{
    backup, certificate,
    clock::Wall,
    dial, files,
    finding::{Finding, Grade, Wish, both, words},
    telemetry, tls,
};

use super::bind;
use crate::{
    config::{Addresses, ServerConfig},
    model::alert::MailTls,
    service::{access, alerts},
    store::{
        alert,
        sqlite::{self, State, backup as copies},
    },
};

const CONFIG: &str = "config";
const DATA: &str = "data";
const KEY: &str = "key";
const STORE: &str = "store";
const DISK: &str = "disk";
const PORT: &str = "port";
const ADDRESS: &str = "address";
const CLOCK: &str = "clock";
const WEBHOOKS: &str = "webhooks";
const MAIL: &str = "mail";
const SIGNING_KEY: &str = "signing-key";
const VERSION: &str = "version";

/// What may be looked at here.
pub const TOPICS: [&str; 13] = [
    CONFIG,
    DATA,
    KEY,
    STORE,
    DISK,
    PORT,
    ADDRESS,
    certificate::TOPIC,
    CLOCK,
    WEBHOOKS,
    MAIL,
    SIGNING_KEY,
    VERSION,
];

/// A key that signs for longer should get a successor.
const OLD_KEY: Duration = Duration::from_secs(365 * 86_400);
/// Less free than this is soon none.
const LITTLE: u64 = 1 << 30;
/// Clocks that differ by less are alike.
const ALIKE: Duration = Duration::from_secs(60);

/// Looks everything over that is wished for.
pub async fn doctor(config: &ServerConfig, wish: &Wish) -> Vec<Finding> {
    let mut findings = configuration(config);
    findings.push(Finding::ok(VERSION, "server", both(env!("CARGO_PKG_VERSION"))));
    let running = is_held(&config.data);
    match Finding::closed_folder(DATA, &config.data) {
        Some(closed) => findings.push(closed),
        None => {
            findings.push(data_folder(&config.data, running));
            findings.extend(store(config));
        }
    }
    findings.push(disk(&config.data));
    findings.extend(certificates(config));
    if wish.wants(&[PORT]) {
        let ports = [("http_listen", config.http_listen), ("grpc_listen", config.grpc_listen)];
        for (key, address) in ports {
            findings.push(port(key, address, running).await);
        }
    }
    if wish.wants(&[MAIL]) {
        findings.extend(Box::pin(mail(config, wish.patience)).await);
    }
    let addresses = config.addresses(config.http_listen, config.grpc_listen);
    if wish.wants(&[ADDRESS, certificate::TOPIC, CLOCK])
        && let Ok(addresses) = addresses
    {
        if running {
            findings.extend(Box::pin(reached(&addresses, wish.patience)).await);
        } else {
            let silent = words(
                "not called: no server runs on this data folder",
                "não chamado: nenhum servidor roda nesta pasta de dados",
            );
            findings.push(Finding::note(ADDRESS, addresses.http, silent));
        }
    }
    findings.retain(|finding| wish.wants(&[finding.topic]));
    findings
}

fn configuration(config: &ServerConfig) -> Vec<Finding> {
    let level =
        telemetry::check(&config.log.level).map_err(|words| Error::new(Code::ConfigInvalid, words));
    let addresses = config.addresses(config.http_listen, config.grpc_listen);
    let checks: [(&str, Result<()>); 6] = [
        ("public_http, public_grpc", addresses.map(drop)),
        ("tls", tls::load(&config.tls).map(drop)),
        ("retention", config.retention.check()),
        ("webhooks", config.calling("").map(drop)),
        ("alerts", config.alerting("").map(drop)),
        ("log.level", level),
    ];
    let faults = checks.iter().filter_map(|(of, checked)| Some((of, checked.as_ref().err()?)));
    let found: Vec<_> = faults.map(|(of, error)| Finding::error(CONFIG, of, error)).collect();
    if found.is_empty() {
        let good = words("it can be used", "pode ser usada");
        return vec![Finding::ok(CONFIG, "server.toml", good)];
    }
    found
}

/// Whether a server has the data folder; looked at without waiting.
fn is_held(data: &Path) -> bool {
    let lock = File::options().write(true).open(data.join("server.lock"));
    lock.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn data_folder(data: &Path, running: bool) -> Finding {
    let place = data.display().to_string();
    if let Some(open) = Finding::open_folder(DATA, data) {
        return open;
    }
    if !data.exists() {
        let new = words("it is made at the first start", "será criada no primeiro início");
        return Finding::note(DATA, place, new);
    }
    let found = match running {
        true => words("a server runs on it", "um servidor está rodando nela"),
        false => words("no server runs on it", "nenhum servidor está rodando nela"),
    };
    Finding::ok(DATA, place, found)
}

/// Store, key and what the store tells of clock and signing key.
fn store(config: &ServerConfig) -> Vec<Finding> {
    let path = config.store_file();
    let place = path.display().to_string();
    if let Err(error) = backup::refuse_pending(&config.data) {
        return vec![Finding::error(STORE, &place, &error)];
    }
    let of_version = |found: u32| {
        let words = format!("it has schema {found}, which is not this program's");
        Finding::error(STORE, &place, &Error::new(Code::StoreVersion, words))
    };
    match sqlite::state(&path) {
        Ok(State::Empty) => {
            let new = words("it is made at the first start", "será criado no primeiro início");
            return vec![Finding::note(STORE, &place, new)];
        }
        Ok(State::Behind { found }) => {
            let todo = words(
                "Make a backup, stop the server and run malote server migrate.",
                "Faça um backup, pare o servidor e execute malote server migrate.",
            );
            return vec![Finding { todo: Some(todo), ..of_version(found) }];
        }
        Ok(State::Ahead { found }) => return vec![of_version(found)],
        Err(error) => return vec![Finding::error(STORE, &place, &error)],
        Ok(State::Current) => {}
    }
    let mut found = Vec::new();
    match copies::glance(&path) {
        Ok(seen) => {
            let size = backup::size(&path) >> 20;
            let told = words(
                format!("its schema is current, {} streams, {size} MiB", seen.streams),
                format!("o schema está atualizado, {} fluxos, {size} MiB", seen.streams),
            );
            found.push(Finding::ok(STORE, &place, told));
            found.push(clock(seen.newest, Wall::now()));
            found.extend(seen.signing_key_at.map(|made| signing_key(made, Wall::now())));
        }
        Err(error) => found.push(Finding::error(STORE, &place, &error)),
    }
    let fits = copies::sealed_keys(&path).and_then(|keys| access::fits(&config.data, &keys));
    let place = config.data.join("master.key");
    found.push(match fits {
        Ok(()) => {
            let good =
                words("it opens what the store has sealed", "abre o que o armazenamento selou");
            Finding::ok(KEY, place.display(), good)
        }
        Err(error) => Finding::error(KEY, place.display(), &error),
    });
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

fn disk(data: &Path) -> Finding {
    let there = data.ancestors().find(|place| place.exists()).unwrap_or(Path::new("."));
    let place = data.display();
    let Some(free) = files::free(there) else {
        let silent = words(
            "this system does not tell what is free",
            "este sistema não informa o espaço livre",
        );
        return Finding::note(DISK, place, silent);
    };
    room(place, free)
}

fn room(place: impl Display, free: u64) -> Finding {
    let free_mib = free >> 20;
    let found = words(format!("{free_mib} MiB are free"), format!("{free_mib} MiB livres"));
    let todo = words(
        "Make room: on a full disk the server refuses every write; nothing acknowledged is lost.",
        "Libere espaço: com o disco cheio o servidor recusa toda gravação; nada confirmado se perde.",
    );
    if free < limits::STORE_FREE_BYTES {
        return Finding::mend(DISK, place, (found, todo)).coded(Code::DiskFull);
    }
    if free < LITTLE {
        return Finding::warning(DISK, place, (found, todo));
    }
    Finding::ok(DISK, place, found)
}

/// The certificates named in the configuration: dates, and whether the own one is made out to the public addresses.
fn certificates(config: &ServerConfig) -> Vec<Finding> {
    let mut found = Vec::new();
    let named = [
        (certificate::TOPIC, Some(config.tls.certificate_file.clone())),
        (WEBHOOKS, config.webhooks.ca_file.clone()),
        (MAIL, config.alerts.mail_ca_file.clone()),
    ];
    for (topic, path) in named {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        // A file that cannot be read is told with the configuration.
        let read = path.and_then(|path| fs::read(&path).ok().map(|pem| (path, pem)));
        let Some((path, pem)) = read else { continue };
        let place = path.display().to_string();
        match certificate::first_of_pem(&pem) {
            Some(der) => {
                found.push(Finding { topic, ..certificate::finding(&place, &der, Wall::now()) });
                if topic == certificate::TOPIC {
                    found.extend(names(config, &place, &der));
                }
            }
            None if topic == certificate::TOPIC => {}
            None => {
                let none = Error::new(Code::ConfigInvalid, "it holds no certificate in PEM form");
                found.push(Finding::error(topic, place, &none));
            }
        }
    }
    found
}

fn names(config: &ServerConfig, place: &str, der: &[u8]) -> Vec<Finding> {
    let of = |address: &String| {
        let uri: http::Uri = address.parse().ok()?;
        let host = uri.host()?.to_owned();
        (!certificate::is_for(der, &host)?).then(|| {
            let found = words(
                format!("it is not made out to {host}, which senders dial"),
                format!("não foi emitido para {host}, que os remetentes chamam"),
            );
            let todo = words(
                "Have a certificate made out to the hosts of public_http and public_grpc.",
                "Obtenha um certificado emitido para os hosts de public_http e public_grpc.",
            );
            Finding::mend(certificate::TOPIC, place, (found, todo))
        })
    };
    [&config.public_http, &config.public_grpc].into_iter().filter_map(of).collect()
}

/// Whether a server can listen there, or does.
async fn port(key: &str, address: SocketAddr, running: bool) -> Finding {
    let of = format!("{key} {address}");
    match bind(key, address).await {
        Ok(_) if running => {
            let found = words("nothing listens there", "nada escuta ali");
            let todo = words(
                "The server that runs was started with another configuration; start it again.",
                "O servidor em execução foi iniciado com outra configuração; reinicie-o.",
            );
            Finding::warning(PORT, of, (found, todo))
        }
        Ok(_) => Finding::ok(PORT, of, words("it is free", "está livre")),
        Err(error) if error.code == Code::AddressInUse && running => {
            Finding::ok(PORT, of, words("the server listens there", "o servidor escuta ali"))
        }
        Err(error) => Finding::error(PORT, of, &error),
    }
}

/// Greets the mail server that alerts go through, where one is set.
async fn mail(config: &ServerConfig, patience: Duration) -> Option<Finding> {
    let path = config.store_file();
    // What is wrong with the store or the authority's file is told beside this.
    let State::Current = sqlite::state(&path).ok()? else { return None };
    let server = alert::mail_server_in(&path).ok()??;
    let ca_pem = config.alerting("").ok()?.ca_pem;
    let (place, tls) = (format!("{}:{}", server.host, server.port), server.tls);
    Some(match alerts::greeted(server, ca_pem, patience).await {
        Ok(()) if tls == MailTls::None => {
            Finding::ok(MAIL, place, words("it answers, without TLS", "responde, sem TLS"))
        }
        Ok(()) => Finding::ok(MAIL, place, words("it answers under TLS", "responde sob TLS")),
        // Mails wait and are tried again for half a day; the server works meanwhile.
        Err(words) => {
            let unsent = Error::new(Code::MailUnsent, words);
            Finding::error(MAIL, place, &unsent).graded(Grade::Warning)
        }
    })
}

/// Calls the public address as a sender would, from this machine.
async fn reached(addresses: &Addresses, patience: Duration) -> Vec<Finding> {
    tls::install_provider();
    let address = format!("{}/api/v1/services", addresses.http);
    let client = reqwest::Client::builder().no_proxy().timeout(patience).tls_info(true).build();
    let answer = match client {
        Ok(client) => client.get(&address).send().await,
        Err(cause) => Err(cause),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(cause) => {
            let why = dial::why(&cause).unwrap_or("no answer came");
            let todo = words(
                "Where senders reach it all the same (another network, an authority that they name in cloud.ca_file), all is well; else look at DNS, front and firewall.",
                "Se os remetentes o alcançam mesmo assim (outra rede, uma autoridade que eles indicam em cloud.ca_file), está tudo certo; senão, veja DNS, proxy reverso e firewall.",
            );
            let found = words(
                format!("not reached from this machine: {why}"),
                format!("não alcançado desta máquina: {why}"),
            );
            return vec![Finding::warning(ADDRESS, address, (found, todo))];
        }
    };
    let mut found = Vec::new();
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>();
    if let Some(der) = info.and_then(|info| info.peer_certificate()) {
        found.push(certificate::finding(&addresses.http, der, Wall::now()));
    }
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    found.push(told(addresses, &address, (status.as_u16(), &body)));
    found
}

/// Whether what answers there is this server.
fn told(addresses: &Addresses, address: &str, (status, body): (u16, &str)) -> Finding {
    if status == 200 && body.contains(&addresses.grpc) {
        let good = words("the registry answers there", "o registry responde ali");
        return Finding::ok(ADDRESS, address, good);
    }
    let found = words(
        format!("what answers there (status {status}) is not this server's registry"),
        format!("o que responde ali (status {status}) não é o registry deste servidor"),
    );
    let todo = words(
        "Let the front before this server pass /api, /totvs.rac and gRPC on to it; or mend public_http and public_grpc.",
        "Faça o proxy reverso à frente deste servidor repassar /api, /totvs.rac e gRPC a ele; ou corrija public_http e public_grpc.",
    );
    Finding::mend(ADDRESS, address, (found, todo)).graded(match status {
        // It drains or starts.
        503 => Grade::Warning,
        _ => Grade::Mend,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{App, fixture},
        *,
    };

    #[test]
    fn a_disk_that_fills_up_is_a_warning_and_a_full_one_is_to_be_mended() {
        let graded = |free| room("data", free).grade;
        assert_eq!(graded(limits::STORE_FREE_BYTES - 1), Grade::Mend);
        assert_eq!(room("data", limits::STORE_FREE_BYTES - 1).code, Some(Code::DiskFull));
        assert_eq!(
            (graded(limits::STORE_FREE_BYTES), graded(LITTLE - 1)),
            (Grade::Warning, Grade::Warning)
        );
        assert_eq!(graded(LITTLE), Grade::Ok);
    }

    fn wish(only: &[&str]) -> Wish {
        let only = only.iter().map(|topic| (*topic).to_owned()).collect();
        Wish { only, patience: Duration::from_secs(5) }
    }

    fn of<'a>(findings: &'a [Finding], topic: &str) -> Vec<&'a Finding> {
        findings.iter().filter(|found| found.topic == topic).collect()
    }

    #[tokio::test]
    async fn every_key_of_a_configuration_that_cannot_be_used_is_told() {
        let home = tempfile::tempdir().unwrap();
        let mut config = ServerConfig {
            public_http: "http://malote.example".into(),
            allow_private: false,
            ..fixture::config(home.path())
        };
        config.log.level = "loud,,=".into();
        config.tls.key_file = home.path().join("none.key");
        config.webhooks.ca_file = Some(home.path().join("none.pem"));
        config.alerts.again_hours = 0;
        let findings = doctor(&config, &wish(&[CONFIG])).await;
        let told: Vec<&str> = findings.iter().map(|found| found.of.as_str()).collect();
        for key in ["public_http, public_grpc", "tls", "webhooks", "alerts"] {
            assert!(told.contains(&key), "{key}: {findings:?}");
        }
        assert!(findings.iter().all(|found| found.grade == Grade::Mend && found.todo.is_some()));
        let good = doctor(&fixture::config(home.path()), &wish(&[CONFIG])).await;
        assert_eq!(good.first().map(|found| found.grade), Some(Grade::Ok), "{good:?}");
    }

    #[tokio::test]
    async fn a_running_server_is_well_and_one_without_its_key_is_not() {
        let running = fixture::Running::start().await;
        let data = running.folder.path();
        let config = ServerConfig {
            http_listen: running.app.http,
            grpc_listen: running.app.grpc,
            ..fixture::config(data)
        };
        let findings = doctor(&config, &wish(&[])).await;
        for topic in [CONFIG, KEY, STORE, PORT, ADDRESS, CLOCK, SIGNING_KEY] {
            let found = of(&findings, topic);
            let well = found.iter().all(|found| found.grade <= Grade::Note);
            assert!(!found.is_empty() && well, "{topic}: {findings:?}");
        }
        fs::rename(data.join("master.key"), data.join("elsewhere")).unwrap();
        let findings = doctor(&config, &wish(&[KEY])).await;
        assert_eq!(of(&findings, KEY)[0].grade, Grade::Mend, "{findings:?}");
        assert!(!data.join("master.key").exists(), "looking makes no key");
    }

    /// Answers one who comes as a mail server does; gives what was said to it.
    async fn postman(listener: tokio::net::TcpListener) -> Vec<String> {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio::io::BufStream::new(stream);
        let mut said = Vec::new();
        let mut answer = "220 mail.example ESMTP\r\n";
        loop {
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return said;
            }
            answer = if line.starts_with("EHLO") { "250 mail.example\r\n" } else { "221 bye\r\n" };
            said.push(line);
        }
    }

    #[tokio::test]
    async fn the_mail_server_is_greeted_without_a_mail_and_one_that_is_silent_is_told() {
        let running = fixture::Running::start().await;
        let home = tempfile::tempdir().unwrap();
        let mut config = fixture::config(running.folder.path());
        assert!(doctor(&config, &wish(&[MAIL])).await.is_empty(), "none is set");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let set = alerts::NewMailServer {
            host: "127.0.0.1".into(),
            port: Some(port),
            tls: MailTls::None,
            from: "malote@loja.example".into(),
            login: None,
        };
        running.app.services.alerts.set_mail_server(set).await.unwrap();
        let wish = wish(&[MAIL]);
        let (said, told) = tokio::join!(postman(listener), doctor(&config, &wish));
        assert_eq!(told.first().map(|found| found.grade), Some(Grade::Ok), "{told:?}");
        assert!(said.len() == 2 && said[1].starts_with("QUIT"), "{said:?}");
        let told = doctor(&config, &wish).await;
        let silent = told.first().unwrap();
        let seen = (silent.grade, silent.code, silent.found.en.as_str());
        assert_eq!(seen, (Grade::Warning, Some(Code::MailUnsent), "nothing listens there"));
        let file = home.path().join("ca.pem");
        fs::write(&file, "no PEM").unwrap();
        config.alerts.mail_ca_file = Some(file);
        let told = doctor(&config, &wish).await;
        assert!(told.iter().any(|found| found.code == Some(Code::ConfigInvalid)), "{told:?}");
    }

    #[tokio::test]
    async fn an_old_store_says_migrate_and_a_port_that_another_has_is_told() {
        let home = tempfile::tempdir().unwrap();
        let config = fixture::config(home.path());
        App::start(&config).await.unwrap().stop().await;
        let db = rusqlite::Connection::open(config.store_file()).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = ServerConfig { http_listen: taken.local_addr().unwrap(), ..config };
        let findings = doctor(&config, &wish(&[STORE, PORT])).await;
        let todo = of(&findings, STORE)[0].todo.clone().unwrap();
        assert!(todo.en.contains("malote server migrate"), "{findings:?}");
        let ports = of(&findings, PORT);
        assert!(ports.iter().any(|found| found.code == Some(Code::AddressInUse)), "{findings:?}");
    }

    #[test]
    fn a_clock_that_went_back_and_a_key_that_is_old_are_told() {
        let day = 86_400_000_000;
        assert_eq!(clock(Wall(2 * day), Wall(day)).grade, Grade::Warning);
        assert_eq!(clock(Wall(day), Wall(2 * day)).grade, Grade::Ok);
        assert_eq!(signing_key(Wall(0), Wall(366 * day)).grade, Grade::Warning);
        assert_eq!(signing_key(Wall(0), Wall(day)).grade, Grade::Ok);
    }
}
