//! Post: the way to the mail server.
//!
//! Promises: STARTTLS or TLS where it is set, or no mail at all; a login only over what was set; a mail that was taken is
//! taken, however the connection ends after that; one try is bounded in time.
//! Never: logs or tells an address, a subject, a password or what the mail server said beyond its status.

use std::{error::Error as _, net::IpAddr, time::Duration};

use lettre::{
    Message,
    message::{Mailbox, header::ContentType},
    transport::smtp::{
        Error as SmtpError,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        commands,
        extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    },
};
use protocol::{Code, Error, Result, limits};
use runtime::dial;
use secrecy::{ExposeSecret as _, SecretString};

use crate::model::alert::{Hindrance, MailServer, MailTls, Unsent};

const LATE: &str = "the mail server did not answer in time";

/// What servers know of, the newest first.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];
/// How long the end of a connection is waited for.
const GOODBYE: Duration = Duration::from_secs(2);
const LACKS: &str = "the mail server does not offer what is needed (login, or addresses in UTF-8)";

/// A mail to one address.
pub(super) struct Mail {
    pub(super) to: String,
    pub(super) subject: String,
    pub(super) text: String,
    /// The same for the same mail: who gets it twice can tell.
    pub(super) name: String,
}

/// The mail server with its password.
pub(super) struct Post {
    pub(super) server: MailServer,
    pub(super) password: Option<SecretString>,
    pub(super) ca_pem: Option<Vec<u8>>,
}

impl Post {
    /// One try.
    pub(super) async fn send(&self, mail: Mail) -> Result<(), Unsent> {
        runtime::tls::install_provider();
        let trying = tokio::time::timeout(limits::MAIL_TIMEOUT, self.offer(mail)).await;
        let late = |_| Err(unreached(LATE));
        let (mut connection, taken) = trying.unwrap_or_else(late)?;
        // It was taken, or not. How the connection ends does not change that.
        let _ = tokio::time::timeout(GOODBYE, connection.quit()).await;
        taken
    }

    /// Whether the mail server answers as it is set, with TLS or without; nobody logs in and nothing is sent.
    pub(super) async fn greet(&self, patience: Duration) -> Result<(), String> {
        runtime::tls::install_provider();
        let greeted = tokio::time::timeout(patience, self.connected()).await;
        let mut connection = greeted.unwrap_or_else(|_| Err(LATE.to_owned()))?;
        // It answered. How the connection ends does not change that.
        let _ = tokio::time::timeout(GOODBYE, connection.quit()).await;
        Ok(())
    }

    /// The connection, and what the mail server said of the mail.
    async fn offer(&self, mail: Mail) -> Result<(AsyncSmtpConnection, Result<(), Unsent>), Unsent> {
        let message = self.message(mail).map_err(later)?;
        let mut connection = self.connected().await.map_err(unreached)?;
        self.log_in(&mut connection).await.map_err(unreached)?;
        let taken = hand_over(&mut connection, &message).await;
        Ok((connection, taken))
    }

    async fn log_in(&self, connection: &mut AsyncSmtpConnection) -> Result<(), String> {
        let user = self.server.user.as_ref();
        let Some((user, password)) = user.zip(self.password.as_ref()) else { return Ok(()) };
        let login = Credentials::new(user.clone(), password.expose_secret().to_owned());
        let login = connection.auth(&MECHANISMS, &login).await;
        login.map(drop).map_err(|error| format!("the login failed: {}", why(&error)))
    }

    /// A connection under TLS where that is set, or under none; the words say why there is none.
    async fn connected(&self) -> Result<AsyncSmtpConnection, String> {
        let MailServer { host, port, tls, .. } = &self.server;
        let hello = ClientId::default();
        let parameters = match tls {
            MailTls::None => None,
            MailTls::StartTls | MailTls::Tls => Some(self.tls()?),
        };
        let (at_once, later) = match tls {
            MailTls::Tls => (parameters, None),
            MailTls::StartTls | MailTls::None => (None, parameters),
        };
        let (server, timeout) = ((host.as_str(), *port), Some(limits::MAIL_TIMEOUT));
        let connected =
            AsyncSmtpConnection::connect_tokio1(server, timeout, &hello, at_once, None).await;
        let mut connection = connected.map_err(|error| why(&error))?;
        if let Some(parameters) = later {
            if !connection.can_starttls() {
                return Err("the mail server does not offer STARTTLS".to_owned());
            }
            connection.starttls(parameters, &hello).await.map_err(|error| why(&error))?;
        }
        Ok(connection)
    }

    fn message(&self, mail: Mail) -> Result<Message, String> {
        let from: Mailbox =
            self.server.from.parse().map_err(|_| "the sender is no address".to_owned())?;
        let to: Mailbox = mail.to.parse().map_err(|_| "that is no address".to_owned())?;
        let domain = from.email.domain().to_owned();
        Message::builder()
            .message_id(Some(format!("<malote-{}@{domain}>", mail.name)))
            .from(from)
            .to(to)
            .subject(mail.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(mail.text)
            .map_err(|_| "the mail cannot be written".to_owned())
    }

    fn tls(&self) -> Result<TlsParameters, String> {
        let mut builder = TlsParameters::builder(self.server.host.clone());
        if let Some(pem) = &self.ca_pem {
            let certificate = Certificate::from_pem(pem);
            let words = |_| "alerts.mail_ca_file is not a certificate in PEM form".to_owned();
            builder = builder.add_root_certificate(certificate.map_err(words)?);
        }
        builder.build().map_err(|error| why(&error))
    }
}

/// Offers the mail, step by step, since a refusal of the address ends it and no other one does.
async fn hand_over(connection: &mut AsyncSmtpConnection, message: &Message) -> Result<(), Unsent> {
    let (envelope, text) = (message.envelope(), message.formatted());
    let addresses = envelope.to().iter().chain(envelope.from());
    let wide = addresses.map(ToString::to_string).any(|address| !address.is_ascii());
    let mut parameters = Vec::new();
    for (needed, extension, parameter) in [
        (wide, Extension::SmtpUtfEight, MailParameter::SmtpUtfEight),
        (
            !text.is_ascii(),
            Extension::EightBitMime,
            MailParameter::Body(MailBodyParameter::EightBitMime),
        ),
    ] {
        if needed && !connection.server_info().supports_feature(extension) {
            return Err(later(LACKS));
        }
        parameters.extend(needed.then_some(parameter));
    }
    let from = commands::Mail::new(envelope.from().cloned(), parameters);
    connection.command(from).await.map_err(|error| answered(&error))?;
    for address in envelope.to() {
        let to = commands::Rcpt::new(address.clone(), Vec::new());
        connection.command(to).await.map_err(|error| refused(&error))?;
    }
    connection.command(commands::Data).await.map_err(|error| answered(&error))?;
    connection.message(&text).await.map_err(|error| answered(&error))?;
    Ok(())
}

fn unreached(words: impl Into<String>) -> Unsent {
    Unsent { words: words.into(), why: Hindrance::Unreached }
}

fn later(words: impl Into<String>) -> Unsent {
    Unsent { words: words.into(), why: Hindrance::Later }
}

/// A status is the server's word about this mail; without one it is gone.
fn answered(error: &SmtpError) -> Unsent {
    if error.status().is_some() { later(why(error)) } else { unreached(why(error)) }
}

/// As [`answered`], of the address.
fn refused(error: &SmtpError) -> Unsent {
    let said = error.source().map(ToString::to_string).unwrap_or_default();
    match error.status().map(|status| status.to_string()) {
        Some(status) if is_for_good(&status, &said) => {
            let words =
                format!("the mail server takes no mail to that address: it answered {status}");
            Unsent { words, why: Hindrance::Never }
        }
        _ => answered(error),
    }
}

/// Whether a mailbox does not exist or takes no mail (RFC 5321, 4.2.3; RFC 7504). What begins with 5.7 is a matter of policy
/// (RFC 3463, 3.8): somebody who may not relay, or has to log in, mends that and wants the mail sent.
fn is_for_good(status: &str, said: &str) -> bool {
    matches!(status, "550" | "551" | "553" | "556") && !said.trim_start().starts_with("5.7.")
}

/// Why a mail was not taken: the kind of the fault or the status, never the server's own words, which may hold addresses.
fn why(error: &SmtpError) -> String {
    if let Some(status) = error.status() {
        return format!("the mail server answered {status}");
    }
    match error.source().and_then(dial::why) {
        Some(words) => words.to_owned(),
        None if error.is_timeout() => LATE.to_owned(),
        None if error.is_tls() => "no TLS could be spoken with the mail server".to_owned(),
        None if error.is_client() => LACKS.to_owned(),
        None => "the mail server cannot be reached".to_owned(),
    }
}

/// One address, without a name.
///
/// # Errors
/// `BAD_REQUEST`.
pub(super) fn address(text: &str) -> Result<String> {
    let bad = || Error::new(Code::BadRequest, "an address is name@host");
    let text = text.trim();
    if text.len() > limits::MAIL_ADDRESS_BYTES {
        return Err(bad());
    }
    let parsed: lettre::Address = text.parse().map_err(|_| bad())?;
    Ok(parsed.to_string())
}

/// Who mails come from: an address, or `Name <name@host>`.
///
/// # Errors
/// `BAD_REQUEST`.
pub(super) fn sender(text: &str) -> Result<String> {
    let bad = || Error::new(Code::BadRequest, "the sender is name@host, or Name <name@host>");
    let text = text.trim();
    if text.len() > 2 * limits::MAIL_ADDRESS_BYTES || text.chars().any(char::is_control) {
        return Err(bad());
    }
    text.parse::<Mailbox>().map(|_| text.to_owned()).map_err(|_| bad())
}

/// Name or address of a mail server.
///
/// # Errors
/// `BAD_REQUEST`.
pub(super) fn host(text: &str) -> Result<String> {
    let text = text.trim();
    let plain = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '.' | '-' | '_' | ':');
    if text.is_empty() || text.len() > 253 || !text.chars().all(plain) {
        let words = "the mail server is named by its host alone: smtp.example.com";
        return Err(Error::new(Code::BadRequest, words));
    }
    Ok(text.to_owned())
}

/// Whether what is sent there stays on this machine.
pub(super) fn is_near(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_hosts_are_taken_where_they_are_such_and_nothing_can_be_put_behind_them() {
        for good in ["ana@loja.example", " ana+malote@loja.example "] {
            assert_eq!(address(good).unwrap(), good.trim());
        }
        for bad in ["", "ana", "ana@", "@x", "a@b\r\nRCPT TO:<c@d>", "Ana <a@b.example>", "a@b c"] {
            assert_eq!(address(bad).unwrap_err().code, Code::BadRequest, "{bad:?}");
        }
        assert!(sender("Malote <malote@loja.example>").is_ok());
        assert!(sender("malote@loja.example").is_ok());
        for bad in ["", "Malote", "Malote <x>\r\nBcc: y@z.example"] {
            assert_eq!(sender(bad).unwrap_err().code, Code::BadRequest, "{bad:?}");
        }
        for good in ["smtp.example.com", "10.0.0.1", "::1", "localhost"] {
            assert!(host(good).is_ok(), "{good}");
        }
        for bad in ["", "smtp://x", "a b", "x/y", "u@x"] {
            assert_eq!(host(bad).unwrap_err().code, Code::BadRequest, "{bad:?}");
        }
        assert!(is_near("LOCALHOST") && is_near("127.0.0.1") && is_near("::1"));
        assert!(!is_near("10.0.0.1") && !is_near("localhost.example"));
    }

    #[test]
    fn a_mailbox_that_does_not_exist_is_refused_for_good_and_a_matter_of_policy_is_not() {
        for (status, said) in
            [("550", "5.1.1 no such user"), ("551", "not here"), ("553", ""), ("556", "")]
        {
            assert!(is_for_good(status, said), "{status} {said}");
        }
        for (status, said) in [
            ("550", "5.7.1 Unable to relay"),
            ("530", "5.7.0 Authentication required"),
            ("554", "5.7.1 Relay access denied"),
            ("552", "5.2.2 mailbox full"),
            ("450", "4.2.0 greylisted"),
            ("421", "too busy"),
        ] {
            assert!(!is_for_good(status, said), "{status} {said}");
        }
    }
}
