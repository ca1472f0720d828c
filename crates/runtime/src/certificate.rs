//! Certificate: what a person has to know of one: from when to when it is valid, and for which names.
//!
//! Promises: bytes of others are read without a panic; what cannot be read is `None`.
//! Never: judges whether a certificate is trusted; the handshake does.

use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    server::ParsedCertificate,
};

use crate::{
    clock::Wall,
    finding::{Finding, words},
};

/// Topic of what is found of one.
pub const TOPIC: &str = "certificate";
/// So long before its end somebody should be told.
const SOON_DAYS: i64 = 14;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// How long a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    pub from: Wall,
    pub to: Wall,
}

/// The first certificate of a PEM text, in DER.
#[must_use]
pub fn first_of_pem(pem: &[u8]) -> Option<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem).next()?.ok().map(|der| der.to_vec())
}

/// Whether it is made out to a host, a name or an address; `None` where either cannot be read.
#[must_use]
pub fn is_for(der: &[u8], host: &str) -> Option<bool> {
    let der = CertificateDer::from(der);
    let certificate = ParsedCertificate::try_from(&der).ok()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).ok()?;
    Some(verify_server_name(&certificate, &name).is_ok())
}

/// From when to when a certificate (DER, RFC 5280 4.1) is valid.
#[must_use]
pub fn validity(der: &[u8]) -> Option<Validity> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut body, _) = element(certificate, SEQUENCE)?;
    // Version (where it is not the first), serial number, algorithm and issuer stand before it.
    if body.first() == Some(&VERSION) {
        body = any(body)?.2;
    }
    for _ in 0..3 {
        body = any(body)?.2;
    }
    let (validity, _) = element(body, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    let (to, _) = time(rest)?;
    Some(Validity { from, to })
}

/// What there is to say of a certificate at a moment.
#[must_use]
pub fn finding(of: &str, der: &[u8], now: Wall) -> Finding {
    let Some(Validity { from, to }) = validity(der) else {
        let found = words("its dates cannot be read", "as datas dele não podem ser lidas");
        return Finding::note(TOPIC, of, found);
    };
    let day = |at: Wall| at.to_iso().split('T').next().unwrap_or_default().to_owned();
    let days = to.0.saturating_sub(now.0).div_euclid(86_400_000_000);
    let renew = words(
        "Renew it; the server takes a renewed file up within a minute.",
        "Renove-o; o servidor adota o arquivo renovado em até um minuto.",
    );
    if now < from {
        let (en, pt) =
            (format!("it begins only on {}", day(from)), format!("só começa em {}", day(from)));
        let todo = words("Set this machine's clock.", "Acerte o relógio desta máquina.");
        return Finding::mend(TOPIC, of, (words(en, pt), todo));
    }
    if now >= to {
        let (en, pt) = (format!("it ended on {}", day(to)), format!("venceu em {}", day(to)));
        return Finding::mend(TOPIC, of, (words(en, pt), renew));
    }
    let found = words(
        format!("it is valid until {}, {days} days", day(to)),
        format!("é válido até {}, {days} dias", day(to)),
    );
    if days < SOON_DAYS {
        return Finding::warning(TOPIC, of, (found, renew));
    }
    Finding::ok(TOPIC, of, found)
}

/// Tag, content and what follows.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let length = match usize::from(*first) {
        short @ ..0x80 => short,
        long => {
            let (digits, behind) = rest.split_at_checked(long - 0x80)?;
            if digits.len() > 4 {
                return None;
            }
            rest = behind;
            digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit))
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn element(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    any(bytes).filter(|(tag, ..)| *tag == wanted).map(|(_, content, rest)| (content, rest))
}

fn time(bytes: &[u8]) -> Option<(Wall, &[u8])> {
    let (tag, content, rest) = any(bytes)?;
    let text = std::str::from_utf8(content).ok().filter(|text| text.is_ascii())?;
    let (century, digits) = match tag {
        // RFC 5280: 50 to 99 are of the last century.
        UTC_TIME => (if text.get(..2)? < "50" { "20" } else { "19" }, text),
        GENERALIZED_TIME => (text.get(..2)?, text.get(2..)?),
        _ => return None,
    };
    let part = |from: usize| digits.get(from..from + 2);
    let iso = format!(
        "{century}{}-{}-{}T{}:{}:{}Z",
        part(0)?,
        part(2)?,
        part(4)?,
        part(6)?,
        part(8)?,
        part(10)?
    );
    let at: jiff::Timestamp = iso.parse().ok()?;
    Some((Wall(at.as_microsecond()), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Grade;

    const PEM: &[u8] = include_bytes!("../tests/data/first.pem");

    #[test]
    fn what_is_no_certificate_is_none_and_never_a_panic() {
        for bytes in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\xa0"] {
            assert_eq!(validity(bytes), None);
            assert_eq!(is_for(bytes, "localhost"), None);
        }
        assert_eq!(first_of_pem(b"no PEM"), None);
    }

    #[test]
    fn a_time_is_read_in_both_forms() {
        let iso = |bytes: &[u8]| time(bytes).map(|(at, _)| at.to_iso());
        assert_eq!(iso(b"\x17\x0d260102030405Z").as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(iso(b"\x17\x0d990102030405Z").as_deref(), Some("1999-01-02T03:04:05Z"));
        assert_eq!(iso(b"\x18\x0f20500102030405Z").as_deref(), Some("2050-01-02T03:04:05Z"));
        assert_eq!(iso(b"\x17\x0d269902030405Z"), None, "there is no month 99");
    }

    #[test]
    fn an_end_that_comes_near_is_told_before_it_comes() {
        let der = first_of_pem(PEM).unwrap();
        let Validity { from, to } = validity(&der).unwrap();
        let day = 86_400_000_000;
        for (at, grade) in [
            (from.0 - 1, Grade::Mend),
            (from.0, Grade::Ok),
            (to.0 - 13 * day, Grade::Warning),
            (to.0, Grade::Mend),
        ] {
            assert_eq!(finding("x", &der, Wall(at)).grade, grade, "{at}");
        }
        assert_eq!(finding("x", b"", Wall(0)).grade, Grade::Note);
    }

    #[test]
    fn every_cut_of_a_certificate_is_read_without_a_panic() {
        let der = first_of_pem(PEM).unwrap();
        let whole = validity(&der).unwrap();
        assert!(whole.from < whole.to);
        assert_eq!(is_for(&der, "localhost"), Some(true));
        assert_eq!(is_for(&der, "other.example"), Some(false));
        for end in 0..der.len() {
            assert_eq!(validity(&der[..end]), None, "cut at {end}");
        }
    }
}
