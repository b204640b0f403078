//! The names of this host: a file that commands and keeper write.

use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::sync::Notify;
use tokio::time::timeout;
use weave_api::names::{OwnNames, directory, own_file};

use crate::listen;
use crate::server::Server;

/// Longest file, bytes: more than all names that a router takes of one host.
const FILE_MAX: u64 = 4 << 20;

/// News of the file.
pub(crate) struct Watch(Arc<Notify>);

impl Watch {
    /// The kernel is asked on a thread of its own.
    pub(crate) fn new(run_dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(&directory(run_dir), AddWatchFlags::IN_MOVED_TO)?;
        let news = Arc::new(Notify::new());
        let told = Arc::clone(&news);
        thread::Builder::new().name("weave-dns-names".into()).spawn(move || {
            while inotify.read_events().is_ok() {
                told.notify_one();
            }
        })?;
        Ok(Self(news))
    }
}

/// Follows the file, and the addresses of this host, for ever.
pub(crate) async fn follow(server: Rc<Server>, watch: Watch) -> ! {
    loop {
        // Without news it may have been changed all the same: the thread can end.
        let _ = timeout(listen::LOOK_EVERY, watch.0.notified()).await;
        read(&server);
        listen::keep_up(&server).await;
    }
}

/// Reads the file. One that is damaged changes nothing.
pub(crate) fn read(server: &Server) {
    let path = own_file(&server.run_dir);
    let text = match fs::metadata(&path) {
        Ok(file) if file.len() > FILE_MAX => Err(io::Error::other("it is too long")),
        Ok(_) => fs::read(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => Err(error),
    };
    match text.and_then(|text| serde_json::from_slice::<OwnNames>(&text).map_err(io::Error::other)) {
        Ok(own) => {
            server.access.borrow_mut().attached = own.subnets;
            *server.exposed.borrow_mut() = own.exposed;
            server.zone.borrow_mut().set_own(own.names.into_iter().map(|own| (own.name, own.address)));
        }
        Err(error) => tracing::warn!("reading {}: {error}", path.display()),
    }
}
