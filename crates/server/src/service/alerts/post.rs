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
        extension::ClientId,
    },
};
use protocol::{Code, Error, Result, limits};
use runtime::dial;
use secrecy::{ExposeSecret as _, SecretString};

use crate::model::alert::{MailServer, MailTls};

const LATE: &str = "the mail server did not answer in time";

/// What servers know of, the newest first.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

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
    /// One try; the words say why it failed.
    pub(super) async fn send(&self, mail: Mail) -> Result<(), String> {
        runtime::tls::install_provider();
        let sending = self.over_connection(mail);
        let sent = tokio::time::timeout(limits::MAIL_TIMEOUT, sending).await;
        sent.unwrap_or_else(|_| Err(LATE.to_owned()))
    }

    /// Whether the mail server answers as it is set, with TLS or without; nobody logs in and nothing is sent.
    pub(super) async fn greet(&self, patience: Duration) -> Result<(), String> {
        runtime::tls::install_provider();
        let greeting = async {
            let mut connection = self.connected().await?;
            // It answered. How the connection ends does not change that.
            let _ = connection.quit().await;
            Ok(())
        };
        let greeted = tokio::time::timeout(patience, greeting).await;
        greeted.unwrap_or_else(|_| Err(LATE.to_owned()))
    }

    async fn over_connection(&self, mail: Mail) -> Result<(), String> {
        let message = self.message(mail)?;
        let mut connection = self.connected().await?;
        let user = self.server.user.as_ref();
        if let Some((user, password)) = user.zip(self.password.as_ref()) {
            let login = Credentials::new(user.clone(), password.expose_secret().to_owned());
            let login = connection.auth(&MECHANISMS, &login).await;
            login.map_err(|error| format!("the login failed: {}", why(&error)))?;
        }
        let sent = connection.send(message.envelope(), &message.formatted()).await;
        sent.map_err(|error| why(&error))?;
        // It was taken. How the connection ends does not change that.
        let _ = connection.quit().await;
        Ok(())
    }

    /// Under TLS where that is set, or not at all.
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

/// Why a mail was not taken: the kind of the fault or the status, never the server's own words, which may hold addresses.
fn why(error: &SmtpError) -> String {
    if let Some(status) = error.status() {
        return format!("the mail server answered {status}");
    }
    match error.source().and_then(dial::why) {
        Some(words) => words.to_owned(),
        None if error.is_timeout() => LATE.to_owned(),
        None if error.is_tls() => "no TLS could be spoken with the mail server".to_owned(),
        None if error.is_client() => {
            "the mail server does not offer what is needed (login, or addresses in UTF-8)"
                .to_owned()
        }
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
}
