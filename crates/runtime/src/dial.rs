//! Dial: why a connection came to nothing, in words for the one who has to mend it.
//!
//! Promises: the words come from the kind of the fault alone; they hold no address and nothing the other side sent.
//! Never: connects.

use std::{error::Error as StdError, io};

use rustls::{CertificateError, Error as Tls};

/// What stands in the way, found among an error's causes; `None` where none of them is known.
#[must_use]
pub fn why(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(words) = of_one(cause) {
            return Some(words);
        }
        next = cause.source();
    }
    None
}

fn of_one(cause: &(dyn StdError + 'static)) -> Option<&'static str> {
    if let Some(tls) = cause.downcast_ref::<Tls>() {
        return Some(of_tls(tls));
    }
    let io = cause.downcast_ref::<io::Error>()?;
    // An error of I/O that carries another one does not show it as its source.
    let carried = io.get_ref().and_then(|inner| why(inner as &(dyn StdError + 'static)));
    carried.or_else(|| of_io(io))
}

fn of_io(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "no route leads there"
        }
        io::ErrorKind::TimedOut => "no answer came in time",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "the connection was broken",
        // The standard library has no kind for a name that leads nowhere.
        _ if error.to_string().starts_with("failed to lookup address") => {
            "the name leads to no address"
        }
        _ => return None,
    })
}

fn of_tls(error: &Tls) -> &'static str {
    match error {
        Tls::InvalidCertificate(fault) => match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet: look at this machine's clock"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is made out to another name"
            }
            CertificateError::UnknownIssuer => {
                "nobody trusted here has signed its certificate: name the authority in ca_file"
            }
            // webpki has no variant of rustls for it.
            CertificateError::Other(other)
                if format!("{other:?}").contains("CaUsedAsEndEntity") =>
            {
                "its certificate is an authority's own: the server needs one that the authority signed"
            }
            _ => "its certificate is not accepted",
        },
        Tls::InvalidMessage(_) => "what listens there does not speak TLS",
        _ => "no TLS connection comes about",
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[derive(Debug)]
    struct Outer(Box<dyn StdError + Send + Sync>);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("outer")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(self.0.as_ref())
        }
    }

    #[test]
    fn a_port_where_nothing_listens_and_a_name_without_address_are_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = Outer(Box::new(TcpStream::connect(free).unwrap_err()));
        assert_eq!(why(&refused), Some("nothing listens there"));
        let unknown = TcpStream::connect(("no-such-name.invalid", 1)).unwrap_err();
        assert_eq!(why(&unknown), Some("the name leads to no address"), "{unknown:?}");
        assert_eq!(why(&io::Error::other("x")), None);
    }

    #[test]
    fn a_fault_of_tls_is_found_inside_an_error_of_io() {
        let fault = Tls::InvalidCertificate(CertificateError::UnknownIssuer);
        let carried = Outer(Box::new(io::Error::new(io::ErrorKind::InvalidData, fault)));
        assert!(why(&carried).unwrap().contains("ca_file"));
        let plain = Tls::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(why(&io::Error::other(plain)), Some("what listens there does not speak TLS"));
    }
}
