//! Whether a container of another host has an address already, as the router knows from the mesh.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weave_api::{Client, ClientError};

use crate::environment::Environment;
use crate::failure::Result;
use crate::output;

/// Time a router has for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long an address may take to come free: of a container that moves, the host that it left
/// may have told the others a moment ago.
const FREE_WITHIN: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Refuses addresses that a container of another host has and none of this one. The inner error
/// names that host. Where no router runs, nobody is known to have one.
pub fn refuse_attached(cidrs: &[IpNet], environment: &Environment) -> Result<weave_host::Result<()>> {
    let addresses: Vec<_> = cidrs.iter().map(IpNet::addr).collect();
    if addresses.is_empty() {
        return Ok(Ok(()));
    }
    let run_dir = environment.run_dir()?;
    let begin = Instant::now();
    let found = Client::connect(&run_dir, ANSWER_WITHIN).and_then(|mut client| {
        loop {
            let found = client.attached_elsewhere(addresses.clone())?;
            if found.is_empty() || begin.elapsed() >= FREE_WITHIN {
                return Ok(found);
            }
            sleep(LOOK_EVERY);
        }
    });
    match found {
        Ok(found) => Ok(found.into_iter().next().map_or(Ok(()), |held| {
            let holder = format!("a container of {} ({})", held.nickname, held.peer);
            Err(weave_host::Error::AddressInUse { address: held.address, holder })
        })),
        Err(ClientError::NotRunning(_)) => Ok(Ok(())),
        Err(error) => {
            output::warn(format_args!(
                "the router could not say whether other hosts have an address: {error}"
            ));
            Ok(Ok(()))
        }
    }
}
