//! `loev sql --serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

#[cfg(feature = "serve")]
pub use listening::serve;

/// Beside PostgreSQL's own 5432, which may be taken.
const PORT: u16 = 5433;

/// Where to listen: `PORT`, `IP` or `IP:PORT`. Without an IP address only this machine is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl Default for Address {
    fn default() -> Self {
        Self((Ipv4Addr::LOCALHOST, PORT).into())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let local = text.replacen("localhost", "127.0.0.1", 1);
        let bare = local.trim_start_matches('[').trim_end_matches(']');
        let whole = local.parse::<SocketAddr>().ok();
        let address = whole.or_else(|| bare.parse::<IpAddr>().ok().map(|ip| (ip, PORT).into()));
        let port = || local.parse::<u16>().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into());
        address.or_else(port).map(Self).ok_or_else(|| {
            "give a port, an IP address, or both, as in 5433, 0.0.0.0 or [::1]:5433; port 0 takes a free one"
                .to_owned()
        })
    }
}

#[cfg(not(feature = "serve"))]
pub fn serve(
    _: Address,
    _: &[loev_sql::Source],
    _: &crate::run::interrupt::Interrupt,
) -> Result<(), super::Failure> {
    let build = "cargo build --release --features serve";
    Err(super::Failure::Usage(format!("this build has no server; one that has: {build}")))
}

#[cfg(feature = "serve")]
mod listening {
    use std::io::{Error, ErrorKind};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use loev_sql::{Server, Source};

    use super::Address;
    use crate::cli::sql::open;
    use crate::cli::{Failure, print, runtime};
    use crate::error::RunError;
    use crate::run::interrupt::Interrupt;

    /// How long Ctrl-C may take to be seen.
    const TICK: Duration = Duration::from_millis(50);

    /// Answers clients until the interrupt.
    pub fn serve(
        Address(address): Address,
        sources: &[Source],
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let listener = TcpListener::bind(address).map_err(|error| cannot_listen(address, error))?;
        let address = listener.local_addr().map_err(|error| cannot_listen(address, error))?;
        let runtime = runtime()?;
        let open = open(&runtime, sources)?;
        if !address.ip().is_loopback() {
            eprintln!(
                "warning: {address} is open to the network: whoever reaches it reads every table, without a password \
                 and without encryption"
            );
        }
        let server = Server::new(&open.context)?;
        let (host, port, database) = (address.ip(), address.port(), server.database());
        print(&format!(
            "listening on postgresql://{address}/{database}; psql -h {host} -p {port} {database}\n"
        ))?;
        let listening = server.listen(listener).map_err(|error| cannot_listen(address, error))?;
        // Not on the threads of the server, which may have other things to do.
        while !interrupt.requested() {
            std::thread::sleep(TICK);
        }
        drop(listening);
        // What is still at work need not come to its end.
        runtime.shutdown_background();
        Err(RunError::Interrupted.into())
    }

    fn cannot_listen(address: SocketAddr, error: Error) -> RunError {
        let error = match error.kind() {
            kind @ ErrorKind::AddrInUse => Error::new(
                kind,
                "another program listens there; --serve=PORT takes another port, --serve=0 a free one",
            ),
            _ => error,
        };
        RunError::io("cannot listen on", address.to_string())(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_or_an_ip_address_or_both() {
        let parsed = |text: &str| text.parse::<Address>().map(|Address(address)| address.to_string());
        for (text, address) in [
            ("5500", "127.0.0.1:5500"),
            ("0", "127.0.0.1:0"),
            ("localhost:5500", "127.0.0.1:5500"),
            ("0.0.0.0", "0.0.0.0:5433"),
            ("10.0.0.7:1", "10.0.0.7:1"),
            ("::1", "[::1]:5433"),
            ("[::1]:5500", "[::1]:5500"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(address));
        }
        for text in ["", "70000", "runs/a", "127.0.0.1:", "127.0.0.1:70000", "example.org:5433", "-1"] {
            assert!(parsed(text).unwrap_err().contains("give a port"), "{text}");
        }
        assert!(Address::default().0.ip().is_loopback());
    }
}
