//! Addresses as they are written: `host:port`.

use std::fmt;
use std::str::FromStr;

/// A host and a port, like `127.0.0.1:5690`, `meta-0.weir:5690` or `[::1]:5690`. Names are resolved when they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// Stands for the machine's own name in an address that others are told.
const HOSTNAME: &str = "{hostname}";

/// Text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is no colon after the host.
    #[error("an address is written host:port, like 127.0.0.1:5690")]
    Form,
    /// What follows the colon is no port.
    #[error("a port is a number up to 65535")]
    Port,
}

impl FromStr for Address {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Address, ParseError> {
        let (host, port) = text.rsplit_once(':').ok_or(ParseError::Form)?;
        let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let plain = !host.is_empty() && !host.contains(|c: char| ":[]/ ".contains(c));
        if !bracketed && !plain {
            return Err(ParseError::Form);
        }
        Ok(Address { host: host.to_owned(), port: port.parse().map_err(|_| ParseError::Port)? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// Any free port of this machine, reachable from nowhere else.
    pub fn loopback() -> Address {
        Address { host: "127.0.0.1".to_owned(), port: 0 }
    }

    /// Whether it means all of a machine's addresses, so that nobody can connect to it as it stands.
    pub fn is_wildcard(&self) -> bool {
        self.host == "0.0.0.0" || self.host == "[::]"
    }

    /// The same address with the machine's own name in the place of `{hostname}`. `name` finds it
    /// out.
    ///
    /// # Errors
    /// That of `name`.
    pub fn named<E>(self, name: impl FnOnce() -> Result<String, E>) -> Result<Address, E> {
        match self.host.contains(HOSTNAME) {
            true => Ok(Address { host: self.host.replace(HOSTNAME, &name()?), ..self }),
            false => Ok(self),
        }
    }

    /// The same host with another port: what port 0 became.
    pub fn with_port(&self, port: u16) -> Address {
        Address { host: self.host.clone(), port }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_and_ports() {
        for text in ["127.0.0.1:5690", "meta-0.weir:80", "[::1]:4566", "localhost:0"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "5690", "127.0.0.1", ":5690", "::1:5690", "http://localhost:1", "a b:1", "[]:1"] {
            assert_eq!(text.parse::<Address>(), Err(ParseError::Form), "{text}");
        }
        for text in ["localhost:", "localhost:65536", "localhost:http"] {
            assert_eq!(text.parse::<Address>(), Err(ParseError::Port), "{text}");
        }
    }

    #[test]
    fn an_address_may_have_the_machines_own_name() {
        let named = |text: &str| text.parse::<Address>().unwrap().named(|| Ok::<_, ()>("c1".to_owned())).unwrap();
        assert_eq!(named("{hostname}:5688").to_string(), "c1:5688");
        assert_eq!(named("{hostname}.weir:5688").to_string(), "c1.weir:5688");
        assert_eq!("[::1]:1".parse::<Address>().unwrap().named(|| Err(())), Ok("[::1]:1".parse().unwrap()));
        assert_eq!("{hostname}:1".parse::<Address>().unwrap().named(|| Err(())), Err(()));
    }

    #[test]
    fn all_interfaces_are_no_destination() {
        assert!("0.0.0.0:1".parse::<Address>().unwrap().is_wildcard());
        assert!("[::]:1".parse::<Address>().unwrap().is_wildcard());
        assert!(!"[::1]:1".parse::<Address>().unwrap().is_wildcard());
    }
}
