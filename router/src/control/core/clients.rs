//! What clients of the control socket ask for.

use super::*;
use crate::config::LogLevel;
use crate::logging;

impl Core {
    /// Frees names, all or none.
    fn forget_identities(&mut self, names: &[PeerName]) -> Result<Reply, Problem> {
        let what = "cannot free the name of a peer";
        for name in names {
            if self.links.values().any(|link| link.peer.name == *name) {
                let why = format!("there is a link to {name}: its host has the key");
                return Err(Problem::new(Code::Failed, what, why, "reset that host, or name another"));
            }
            if self.mesh.peer(*name).is_none() {
                let why = format!("no key is known for {name}");
                return Err(Problem::new(Code::Failed, what, why, "see `weave status peers` for names"));
            }
        }
        for name in names {
            tracing::info!(%name, "the name is free: any key may take it");
            self.mesh.forget_identity(*name);
        }
        Ok(Reply::Done)
    }

    pub(super) fn on_asked(&mut self, request: Request, answer: Answer) {
        self.asked.note(&request);
        let now = self.now();
        let what = "cannot change the targets";
        let result = match request {
            Request::Status => Ok(Reply::Status(Box::new(status::status(self, now)))),
            Request::Names => Ok(Reply::Names(status::names(self, usize::MAX).0)),
            Request::AttachedElsewhere { addresses } => {
                Ok(Reply::AttachedElsewhere(status::attached_elsewhere(self, &addresses)))
            }
            Request::Connect { replace, peers } => {
                let done = if replace {
                    self.dialler.replace_targets(&peers, now)
                } else {
                    self.dialler.add_targets(&peers, now)
                };
                self.saver.targets(self.dialler.targets().cloned().collect());
                let limit = weave_mesh::dialler::TARGETS;
                let why = format!("more than {limit} targets");
                done.then_some(Reply::Done)
                    .ok_or_else(|| Problem::new(Code::TooLarge, what, why, "forget some"))
            }
            Request::Forget { peers } => {
                let port = self.config.port;
                let peers: Vec<Target> = peers.into_iter().flat_map(|peer| peer.spellings(port)).collect();
                let weave_mesh::dialler::Forgotten { addresses, links } = self.dialler.forget(&peers);
                let mut recent: Vec<_> = addresses.iter().map(|at| Target::from(*at)).collect();
                for link in self.links.values_mut() {
                    let is_there = link.address.is_some_and(|at| addresses.contains(&at));
                    // Also at another address than it was dialled at.
                    if is_there || links.contains(&link.number) {
                        link.forgotten = true;
                        recent.extend(link.address.map(Target::from));
                    }
                }
                self.recent.retain(|known| !peers.contains(known) && !recent.contains(known));
                self.saver.targets(self.dialler.targets().cloned().collect());
                self.saver.recent(self.recent.clone());
                Ok(Reply::Done)
            }
            Request::ForgetIdentity { names } => self.forget_identities(&names),
            Request::Leave => {
                self.leave();
                Ok(Reply::Done)
            }
            Request::Stop => {
                self.stop();
                Ok(Reply::Done)
            }
            // Answered when it is done.
            Request::Reload => return self.reload(Some(answer)),
            Request::LogLevel { level } => set_log_level(&level),
            Request::Ping { peer, size } => return self.ping(peer, size, answer),
            Request::AttachmentsChanged => {
                self.read_attachments();
                // It may be the keeper, which found that the host stands otherwise. A look that waits does.
                let _ = self.look_beside.try_send(());
                Ok(Reply::Done)
            }
            Request::Subscribe => {
                let why = "this router sends no events";
                Err(Problem::new(Code::UnknownCommand, "cannot subscribe", why, "ask for the status instead"))
            }
        };
        answer.give(result);
    }
}

fn set_log_level(level: &str) -> Result<Reply, Problem> {
    let what = "cannot change how much is logged";
    let Some(known) = LogLevel::ALL.into_iter().find(|known| known.as_str() == level) else {
        let why = format!("{level:.20?} is no level");
        return Err(Problem::new(Code::BadRequest, what, why, "name error, warn, info, debug or trace"));
    };
    logging::set_level(known).map_err(|error| Problem::new(Code::Failed, what, error, ""))?;
    // An error, to be read at every level.
    tracing::error!(level, "from now on this much is logged");
    Ok(Reply::Done)
}
