//! The addresses of other hosts' containers: the router tells them over its socket.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weave_api::frame::Decoder;
use weave_api::updates::{AddressesUpdate, addresses_socket};
use weave_api::{Hello, REPLY_MAX};
use weave_host::keeper::{Elsewhere, News, NewsSender};
use weave_host::netlink::Neighbours;

/// Wait before a router that is not there is looked for again.
const AGAIN: Duration = Duration::from_millis(250);
/// Bytes read at once.
const READ: usize = 16 << 10;

/// Follows one router after the other, on a thread that ends with the process. What a router told
/// holds until the next one tells what it knows.
pub(super) fn follow(run_dir: PathBuf, elsewhere: Elsewhere, news: NewsSender) -> io::Result<()> {
    let follow = move || {
        loop {
            if let Err(error) = follow_one(&run_dir, &elsewhere, &news) {
                tracing::debug!("the socket of addresses: {error}");
            }
            elsewhere.router_ended();
            std::thread::sleep(AGAIN);
        }
    };
    std::thread::Builder::new().name("keeper-addresses".into()).spawn(follow).map(drop)
}

fn follow_one(run_dir: &Path, elsewhere: &Elsewhere, news: &NewsSender) -> io::Result<()> {
    let mut stream = UnixStream::connect(addresses_socket(run_dir))?;
    let mut decoder = Decoder::new(REPLY_MAX);
    let mut buffer = vec![0; READ];
    let mut is_greeted = false;
    // What is told before all is: a change says nothing of the rest.
    let mut all = Some(Neighbours::new());
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        decoder.push(buffer.get(..len).unwrap_or_default());
        loop {
            if !is_greeted {
                let Some(hello) = decoder.next_value::<Hello>().map_err(io::Error::other)? else { break };
                hello.check().map_err(io::Error::other)?;
                is_greeted = true;
                continue;
            }
            let Some(update) = decoder.next_value::<AddressesUpdate>().map_err(io::Error::other)? else {
                break;
            };
            let concerns = match (update, &mut all) {
                (AddressesUpdate::Set(set), None) => elsewhere.change(set),
                (AddressesUpdate::Set(set), Some(all)) => {
                    all.extend(set.into_iter().filter_map(|(address, mac)| Some((address, mac?))));
                    continue;
                }
                (AddressesUpdate::Complete, all) => elsewhere.replace(all.take().unwrap_or_default()),
            };
            if concerns {
                news.tell(News::Addresses);
            }
        }
    }
}
