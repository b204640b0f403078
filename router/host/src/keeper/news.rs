//! News for the keeper, and when it looks without any.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::EVERYTHING_EVERY;

/// News that comes within this time is looked at together: an engine tells many things of one
/// container, and a flush takes many rules.
const TOGETHER: Duration = Duration::from_millis(50);
/// When containers are looked at once more after news of them: Podman tells of a start before its
/// list does.
const ENGINE_SETTLES: Duration = Duration::from_millis(500);

/// The firewall is looked at again at the soonest so many times as late as a look took: others may change
/// it without end, and it has as many rules as they like.
const FIREWALL_REST: u32 = 10;
/// But no later than this.
const FIREWALL_REST_MAX: Duration = Duration::from_secs(1);

/// Something may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A container started, ended or is gone; or the engine came back.
    Engine,
    /// An interface changed.
    Links,
    /// The firewall's tables changed.
    Firewall,
    /// Addresses are attached elsewhere than before.
    Addresses,
    /// A router runs that was given its queues.
    Router,
    /// One did not start.
    NoRouter,
    /// The keeper is to end.
    Stop,
}

/// News that waits, each kind once: more of one adds nothing, and keeps none of another out.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Vec<News>>,
    came: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Vec<News>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, what: News) {
        let mut waiting = self.lock();
        if !waiting.contains(&what) {
            waiting.push(what);
            self.came.notify_all();
        }
    }

    /// What waits, in the order of its coming; none at the deadline.
    pub(super) fn take(&self, deadline: Instant) -> Vec<News> {
        let mut waiting = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !waiting.is_empty() || left.is_zero() {
                return std::mem::take(&mut waiting);
            }
            waiting = self.came.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The same with all that comes together with it.
    pub(super) fn take_together(&self, deadline: Instant) -> Vec<News> {
        let mut all = self.take(deadline);
        if all.is_empty() || all.contains(&News::Stop) {
            return all;
        }
        std::thread::sleep(TOGETHER);
        let more = self.take(Instant::now());
        all.extend(more.into_iter().filter(|one| !all.contains(one)).collect::<Vec<_>>());
        all
    }
}

/// Where news is told. Once the last is gone the keeper is to end.
#[derive(Debug, Clone)]
pub struct NewsSender(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    host: Arc<Inbox>,
    containers: Arc<Inbox>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.host.tell(News::Stop);
        self.containers.tell(News::Stop);
    }
}

/// Where it comes: what concerns the host and what concerns containers.
#[derive(Debug)]
pub struct NewsReceiver {
    pub(super) host: Arc<Inbox>,
    pub(super) containers: Arc<Inbox>,
}

/// Both ends.
#[must_use]
pub fn news() -> (NewsSender, NewsReceiver) {
    let (host, containers) = (Arc::default(), Arc::default());
    let receiver = NewsReceiver { host: Arc::clone(&host), containers: Arc::clone(&containers) };
    (NewsSender(Arc::new(Ends { host, containers })), receiver)
}

impl NewsSender {
    /// Tells it to whom it concerns.
    pub fn tell(&self, what: News) {
        if matches!(what, News::Engine | News::Router) {
            self.0.containers.tell(what);
        }
        if what != News::Engine {
            self.0.host.tell(what);
        }
    }
}

/// When something is looked at without news of it: however much other news there is.
pub(super) struct Looks {
    everything: &'static [News],
    everything_at: Instant,
    /// When containers are looked at once more.
    settled_at: Option<Instant>,
    /// Until when the firewall is not looked at, and whether there is news of it.
    firewall_rests: Option<(Instant, bool)>,
}

impl Looks {
    /// All that is looked at of the host.
    pub(super) const HOST: &[News] = &[News::Links, News::Firewall];

    /// After the host was looked at.
    pub(super) fn of_host(now: Instant) -> Self {
        let everything_at = now + EVERYTHING_EVERY;
        Self { everything: Self::HOST, everything_at, settled_at: None, firewall_rests: None }
    }

    /// After containers were looked at.
    pub(super) fn of_containers(now: Instant) -> Self {
        Self { everything: &[News::Engine], ..Self::of_host(now) }
    }

    /// Containers are to be looked at once more without any news.
    pub(super) fn look_again(&mut self, at: Instant) {
        self.settled_at = Some(self.settled_at.map_or(at, |settled| settled.min(at)));
    }

    /// The firewall was looked at, which took so long.
    pub(super) fn firewall_took(&mut self, now: Instant, took: Duration) {
        self.firewall_rests = Some((now + (took * FIREWALL_REST).min(FIREWALL_REST_MAX), false));
    }

    /// The next one without any news.
    pub(super) fn next(&self) -> Instant {
        let firewall_at = self.firewall_rests.filter(|(_, has_news)| *has_news).map(|(at, _)| at);
        [self.settled_at, firewall_at].into_iter().flatten().fold(self.everything_at, Instant::min)
    }

    /// What is to be looked at after this news.
    pub(super) fn due(&mut self, now: Instant, came: &[News]) -> Vec<News> {
        let mut due = came.to_vec();
        if let Some((at, has_news)) = &mut self.firewall_rests {
            *has_news |= came.contains(&News::Firewall);
            let has_news = *has_news;
            due.retain(|what| *what != News::Firewall);
            if now >= *at {
                self.firewall_rests = None;
                due.extend(has_news.then_some(News::Firewall));
            }
        }
        if came.contains(&News::Router) || now >= self.everything_at {
            self.everything_at = now + EVERYTHING_EVERY;
            due.extend(self.everything);
        }
        if came.contains(&News::Engine) {
            self.settled_at = Some(now + ENGINE_SETTLES);
        } else if self.settled_at.is_some_and(|at| now >= at) {
            self.settled_at = None;
            due.push(News::Engine);
        }
        due
    }
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
    fn news_of_one_kind_keeps_none_of_another_out() {
        let (sender, receiver) = news();
        (0..100).for_each(|_| sender.tell(News::Firewall));
        for what in [News::Links, News::Engine, News::Router] {
            sender.tell(what);
        }
        let now = Instant::now();
        assert_eq!(receiver.host.take(now), [News::Firewall, News::Links, News::Router]);
        assert_eq!(receiver.containers.take(now), [News::Engine, News::Router]);
        assert_eq!(receiver.host.take(now), []);
        drop(sender);
        let far = now + Duration::from_secs(60);
        assert_eq!(receiver.host.take_together(far), [News::Stop]);
        assert_eq!(receiver.containers.take_together(far), [News::Stop]);
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
    fn the_firewall_rests_after_a_look_and_no_news_of_it_is_lost() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut looks = Looks::of_host(begin);
        assert_eq!(looks.due(begin, &[News::Firewall]), [News::Firewall]);
        looks.firewall_took(begin, Duration::from_millis(30));
        assert_eq!(looks.next(), begin + EVERYTHING_EVERY);
        assert_eq!(looks.due(after(100), &[News::Links, News::Firewall]), [News::Links]);
        assert_eq!(looks.next(), after(300));
        assert_eq!(looks.due(after(300), &[]), [News::Firewall]);
        looks.firewall_took(after(300), Duration::from_secs(5));
        assert_eq!(looks.due(after(400), &[News::Firewall]), []);
        assert_eq!(looks.due(after(1300), &[News::Links]), [News::Links, News::Firewall]);
        // What is changed once in a while is looked at when it is.
        assert_eq!(looks.due(after(9000), &[News::Firewall]), [News::Firewall]);
    }

    #[test]
    fn containers_are_looked_at_every_half_minute_without_any_news_of_them() {
        let begin = Instant::now();
        let mut looks = Looks::of_containers(begin);
        let mut now = begin;
        for _ in 0..5 {
            let next = looks.next();
            assert_eq!(next, now + EVERYTHING_EVERY);
            assert_eq!(looks.due(now + EVERYTHING_EVERY / 2, &[News::Links]), [News::Links]);
            now = next;
            assert_eq!(looks.due(now, &[]), [News::Engine]);
        }
        // A router that starts is news, too.
        assert_eq!(looks.due(now, &[News::Router]), [News::Router, News::Engine]);
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
