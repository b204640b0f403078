//! News for the keeper, and when it looks without any.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::EVERYTHING_EVERY;

/// News that waits, at most; more of the same kind adds nothing.
const WAITING: usize = 16;
/// News that comes within this time is looked at together: an engine tells many things of one
/// container, and a flush takes many rules.
const TOGETHER: Duration = Duration::from_millis(50);
/// When containers are looked at once more after news of them: Podman tells of a start before its
/// list does.
const ENGINE_SETTLES: Duration = Duration::from_millis(500);

/// Something may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A container started, ended or is gone; or the engine came back.
    Engine,
    /// An interface changed.
    Links,
    /// The firewall's tables changed.
    Firewall,
    /// A router runs that was given its queues.
    Router,
    /// One did not start.
    NoRouter,
    /// The keeper is to end.
    Stop,
}

/// Where news is told.
#[derive(Debug, Clone)]
pub struct NewsSender {
    host: SyncSender<News>,
    containers: SyncSender<News>,
}

/// Where it comes: what concerns the host and what concerns containers.
#[derive(Debug)]
pub struct NewsReceiver {
    pub(super) host: Receiver<News>,
    pub(super) containers: Receiver<News>,
    /// What the containers' side finds that concerns the host, and the other way round.
    pub(super) to_host: SyncSender<News>,
    pub(super) to_containers: SyncSender<News>,
}

/// Both ends.
#[must_use]
pub fn news() -> (NewsSender, NewsReceiver) {
    let (host, of_host) = sync_channel(WAITING);
    let (containers, of_containers) = sync_channel(WAITING);
    let (to_host, to_containers) = (host.clone(), containers.clone());
    let sender = NewsSender { host, containers };
    (sender, NewsReceiver { host: of_host, containers: of_containers, to_host, to_containers })
}

impl NewsSender {
    /// Tells it. Of a router and of the end nothing is lost, and the keeper is waited for if it is
    /// busy; all other news needs no second one while some is waiting.
    pub fn tell(&self, what: News) {
        if matches!(what, News::Engine | News::Router) {
            let _ = self.containers.try_send(what);
        }
        match what {
            News::Engine => {}
            News::Links | News::Firewall => drop(self.host.try_send(what)),
            News::Router | News::NoRouter | News::Stop => drop(self.host.send(what)),
        }
    }
}

/// When something is looked at without news of it: however much other news there is.
pub(super) struct Looks {
    everything: &'static [News],
    everything_at: Instant,
    /// When containers are looked at once more.
    settled_at: Option<Instant>,
}

impl Looks {
    /// All that is looked at of the host.
    pub(super) const HOST: &[News] = &[News::Links, News::Firewall];

    /// After the host was looked at.
    pub(super) fn of_host(now: Instant) -> Self {
        Self { everything: Self::HOST, everything_at: now + EVERYTHING_EVERY, settled_at: None }
    }

    /// After containers were looked at.
    pub(super) fn of_containers(now: Instant) -> Self {
        Self { everything: &[News::Engine], ..Self::of_host(now) }
    }

    /// Containers are to be looked at once more without any news.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.settled_at = Some(now + ENGINE_SETTLES);
    }

    /// The next one without any news.
    pub(super) fn next(&self) -> Instant {
        self.settled_at.map_or(self.everything_at, |at| at.min(self.everything_at))
    }

    /// What is to be looked at after this news.
    pub(super) fn due(&mut self, now: Instant, came: &[News]) -> Vec<News> {
        let mut due = came.to_vec();
        if came.contains(&News::Router) || now >= self.everything_at {
            self.everything_at = now + EVERYTHING_EVERY;
            due.extend(self.everything);
        }
        if came.contains(&News::Engine) {
            self.look_again(now);
        } else if self.settled_at.is_some_and(|at| now >= at) {
            self.settled_at = None;
            due.push(News::Engine);
        }
        due
    }
}

/// The next news with all that comes together with it; none at the deadline.
pub(super) fn next(news: &Receiver<News>, deadline: Instant) -> Vec<News> {
    let first = match news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(first) => first,
        Err(RecvTimeoutError::Timeout) => return Vec::new(),
        Err(RecvTimeoutError::Disconnected) => News::Stop,
    };
    let mut all = vec![first];
    let until = Instant::now() + TOGETHER;
    while let Ok(more) = news.recv_timeout(until.saturating_duration_since(Instant::now())) {
        if !all.contains(&more) {
            all.push(more);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What is looked at in a minute of news that comes every `every`.
    fn in_a_minute(every: Duration, news: &[News]) -> Vec<(Duration, Vec<News>)> {
        let begin = Instant::now();
        let mut looks = Looks::of_host(begin);
        let mut now = begin;
        let mut comes = begin + every;
        let mut all = Vec::new();
        while now < begin + Duration::from_secs(60) {
            now = looks.next().min(comes);
            let came = if now == comes { news } else { &[] };
            if now == comes {
                comes += every;
            }
            all.push((now - begin, looks.due(now, came)));
        }
        all
    }

    #[test]
    fn everything_of_the_host_is_looked_at_every_half_minute_with_any_news() {
        for every in [Duration::from_millis(100), Duration::from_secs(7), Duration::from_secs(100)] {
            for news in [News::Engine, News::Links, News::Firewall] {
                let looks = in_a_minute(every, &[news]);
                for what in Looks::HOST {
                    let times = looks.iter().filter(|(_, due)| due.contains(what)).map(|(at, _)| *at);
                    let times: Vec<Duration> = times.collect();
                    let gaps = std::iter::once(Duration::ZERO).chain(times.iter().copied()).zip(&times);
                    for (before, after) in gaps {
                        assert!(*after - before <= EVERYTHING_EVERY, "{what:?} at {before:?} and {after:?}");
                    }
                    assert!(*times.last().unwrap() >= EVERYTHING_EVERY, "{news:?} every {every:?}: {what:?}");
                }
            }
        }
    }

    #[test]
    fn containers_are_looked_at_once_more_after_news_of_them_whatever_other_news_there_is() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut looks = Looks::of_host(begin);
        assert_eq!(looks.due(begin, &[News::Engine]), [News::Engine]);
        for ms in [100, 200, 300, 400] {
            assert_eq!(looks.due(after(ms), &[News::Links]), [News::Links]);
            assert_eq!(looks.next(), after(500));
        }
        assert_eq!(looks.due(after(510), &[News::Links]), [News::Links, News::Engine]);
        assert_eq!(looks.due(after(610), &[News::Firewall]), [News::Firewall]);
        assert_eq!(looks.next(), begin + EVERYTHING_EVERY);
        // News of containers together with a look at everything is no reason to leave it out.
        looks.due(after(700), &[News::Router, News::Engine]);
        assert_eq!(looks.next(), after(1200));
    }
}
