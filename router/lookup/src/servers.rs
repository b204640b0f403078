//! The servers that a host asks, one after the other.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_server::proto::op::Query;
use tokio::time::timeout;

use crate::exchange::exchange;
use crate::reply::Reply;

/// Time a server has for an answer while others wait behind it.
const SERVER_WITHIN: Duration = Duration::from_secs(2);
/// The same for one that was silent lately. It keeps its place: what it knows, those behind it may
/// not, and say that a name is not there.
const SILENT_WITHIN: Duration = Duration::from_millis(500);
/// How long that is.
const LATELY: Duration = Duration::from_secs(60);

/// Servers in the order in which the file names them.
///
/// As with the C library, the next one is asked when one is silent, cannot be reached, or does not
/// know (anything but `NoError` and `NXDomain`); what the first that knows says holds.
#[derive(Debug)]
pub struct Servers(Vec<Server>);

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// When it last let the time pass; `None` after an answer.
    silent: Cell<Option<Instant>>,
}

impl Servers {
    /// These, in their order.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let server = |address| Server { address, silent: Cell::default() };
        Self(addresses.into_iter().map(server).collect())
    }

    /// Asks; `query` has to be of the class IN, with a name that ends in a dot.
    ///
    /// # Errors
    /// What the last server said, or that `within` is over.
    pub async fn ask(&self, query: &Query, within: Duration) -> io::Result<Reply> {
        let until = Instant::now() + within;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "there is no server to ask");
        let mut behind = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for server in &self.0 {
            behind = behind.saturating_sub(1);
            let left = until.saturating_duration_since(Instant::now());
            match server.ask(query, server.time(left, behind)).await {
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    failure = io::Error::new(error.kind(), format!("{}: {error}", server.address.ip()));
                }
            }
        }
        Err(failure)
    }
}

impl Server {
    /// Its time, when `behind` others are to have theirs.
    fn time(&self, left: Duration, behind: u32) -> Duration {
        if behind == 0 {
            return left;
        }
        let was_silent = self.silent.get().is_some_and(|silent| silent.elapsed() < LATELY);
        let most = if was_silent { SILENT_WITHIN } else { SERVER_WITHIN };
        most.min(left / (behind + 1))
    }

    async fn ask(&self, query: &Query, within: Duration) -> io::Result<Reply> {
        match timeout(within, exchange(self.address, query)).await {
            Ok(answer) => {
                self.silent.set(None);
                answer.and_then(|message| Reply::of(message, query))
            }
            Err(_) => {
                self.silent.set(Some(Instant::now()));
                Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
