//! Addresses of this host's containers that come free.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use weave_host::engine::Engine;
use weave_host::records::{Record, Records};

use super::attach::open_records;
use crate::environment::Environment;
use crate::failure::Result;

/// How long the interface of a container that has ended may be there still: the keeper takes it when it
/// hears of the end from the engine, otherwise the kernel takes the namespace away when it has time.
const FREE_WITHIN: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// What `attempt` makes of the records, once no container that has just ended is in its way
/// (`docker rm -f C; weave run …`). The inner error is its own.
pub fn once_free<T>(
    environment: &Environment,
    mut attempt: impl FnMut(&mut Records) -> weave_host::Result<T>,
) -> Result<weave_host::Result<T>> {
    let deadline = Instant::now() + FREE_WITHIN;
    loop {
        let mut records = open_records(environment)?;
        let attempted = attempt(&mut records);
        let taken = match &attempted {
            Err(weave_host::Error::AddressInUse { address, .. }) => *address,
            Err(weave_host::Error::RememberedInUse { cidr, .. }) => cidr.addr(),
            Ok(_) | Err(_) => return Ok(attempted),
        };
        let holder = holder(&records, taken).cloned();
        // The engine is not asked under the lock.
        drop(records);
        if !holder.is_some_and(|holder| is_over(&holder, environment)) || Instant::now() >= deadline {
            return Ok(attempted);
        }
        sleep(LOOK_EVERY);
    }
}

fn holder(records: &Records, address: IpAddr) -> Option<&Record> {
    let mut there = records.all().iter().filter(|record| !records.has_ended(record));
    there.find(|record| record.cidrs.iter().any(|cidr| cidr.addr() == address))
}

/// Whether a container has ended, as far as that can be found out.
fn is_over(holder: &Record, environment: &Environment) -> bool {
    if !holder.is_of_engine() {
        return holder.open().is_none();
    }
    let host = holder.engine.clone().map_or_else(|| environment.engine_host(), Ok);
    let found = host.map(|host| Engine::new(&host).and_then(|engine| engine.find(&holder.container)));
    match found {
        Ok(Ok(container)) => container.pid.is_none(),
        Ok(Err(error)) => matches!(error, weave_host::Error::NoContainer { .. }),
        Err(_) => false,
    }
}
