//! From a request to its answer.

use super::body::Body;
use super::patience::Patience;
use super::{Site, count, host, page};
use crate::control::core::Core;
use crate::control::metrics::{self, Process, Sample, Scrape};
use crate::control::status::{self, millis};
use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use weave_api::report::{REPORT_VERSION, Report};
use weave_host::names::DnsSettings;

/// What the page may load and who may frame it: itself, and nobody.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const UNKNOWN: &str = "there is /metrics, /healthz, /readyz, /report, /events and the page /";
const NO_CORE: &str = "the control core of the router does not answer";

/// An answer without the headers that all have.
struct Plain {
    code: StatusCode,
    content_type: &'static str,
    /// False for what is the same as long as the router runs.
    live: bool,
    body: Body,
}

impl Plain {
    fn live(content_type: &'static str, body: impl Into<Body>) -> Self {
        Self { code: StatusCode::OK, content_type, live: true, body: body.into() }
    }

    fn said(code: StatusCode, text: &'static str) -> Self {
        let body = Body::from(Bytes::from([text.as_bytes(), b"\n"].concat()));
        Self { code, content_type: TEXT, live: true, body }
    }
}

/// Answers a request; `last` if no other may come over its connection.
pub(super) async fn answer<B>(
    site: &Site,
    request: &Request<B>,
    patience: Rc<Patience>,
    last: bool,
) -> Response<Body> {
    let plain = match refuse(site, request) {
        Some(refused) => refused,
        None => give(site, request).await,
    };
    count(if plain.code.is_success() { &site.counters.answered } else { &site.counters.failed });
    let mut response = Response::new(plain.body.with(patience));
    *response.status_mut() = plain.code;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_TYPE, plain.content_type);
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(CACHE_CONTROL, if plain.live { "no-store" } else { "no-cache" });
    match plain.code {
        StatusCode::METHOD_NOT_ALLOWED => _ = set(ALLOW, "GET, HEAD"),
        StatusCode::SERVICE_UNAVAILABLE => _ = set(RETRY_AFTER, "1"),
        _ => {}
    }
    if last {
        set(CONNECTION, "close");
    }
    response
}

/// Why a request is answered with nothing of what it asks for.
fn refuse<B>(site: &Site, request: &Request<B>) -> Option<Plain> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "only GET and HEAD: nothing can be changed over HTTP";
        return Some(Plain::said(StatusCode::METHOD_NOT_ALLOWED, text));
    }
    let mut hosts = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host),
        (None, _) if request.version() == Version::HTTP_10 => None,
        _ => return Some(Plain::said(StatusCode::BAD_REQUEST, "a request has one Host header")),
    };
    let absolute = request.uri().authority().map(hyper::http::uri::Authority::as_str);
    if named.into_iter().chain(absolute).all(|host| host::is_ours(host, &site.names)) {
        return None;
    }
    let text = "this router does not go by that name: use an address or its host name, or launch it with \
                WEAVE_STATUS_HOSTS=NAME,...";
    Some(Plain::said(StatusCode::MISDIRECTED_REQUEST, text))
}

async fn give<B>(site: &Site, request: &Request<B>) -> Plain {
    match request.uri().path() {
        "/healthz" => match site.core.glance(|_| ()).await {
            Some(()) => Plain::said(StatusCode::OK, "ok"),
            None => Plain::said(StatusCode::SERVICE_UNAVAILABLE, NO_CORE),
        },
        "/readyz" => match site.core.glance(|core| core.not_ready()).await {
            Some(None) => Plain::said(StatusCode::OK, "ready"),
            Some(Some(why)) => Plain::said(StatusCode::SERVICE_UNAVAILABLE, why),
            None => Plain::said(StatusCode::SERVICE_UNAVAILABLE, NO_CORE),
        },
        "/metrics" => scrape(site).await,
        "/report" => report(site).await,
        "/events" => events(site, request.method()),
        path => match page::file(path) {
            Some(file) => {
                let body = Bytes::from_static(file.bytes);
                Plain { live: false, ..Plain::live(file.content_type, body) }
            }
            None => Plain::said(StatusCode::NOT_FOUND, UNKNOWN),
        },
    }
}

async fn scrape(site: &Site) -> Plain {
    let (http, config) = (site.sample(), Arc::clone(&site.config));
    let text = site.core.make(Sample::of, move |sample| {
        let settings = DnsSettings::read(&config.state_dir).ok().flatten();
        let has_dns = settings.is_some_and(|settings| settings.enabled);
        let beside = sample.read_beside();
        metrics::render(&Scrape { sample, http, process: Process::read(), beside, has_dns })
    });
    match text.await {
        Some(text) => Plain::live(METRICS, Bytes::from(text)),
        None => Plain::said(StatusCode::SERVICE_UNAVAILABLE, NO_CORE),
    }
}

async fn report(site: &Site) -> Plain {
    let Some(place) = site.reports.take() else {
        let text = "too many reports are being sent: ask again";
        return Plain::said(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let look = |core: &Core| {
        let (names, names_left_out) = status::names(core, usize::MAX);
        let now = core.now();
        let status = status::status(core, now);
        let names_by_host = BTreeMap::new();
        Report {
            version: REPORT_VERSION,
            taken_ms: millis(now),
            status,
            names,
            names_left_out,
            names_by_host,
        }
    };
    match site.core.make(look, |report| serde_json::to_vec(&report).ok()).await {
        Some(Some(json)) => Plain::live(JSON, Body::placed(json.into(), place)),
        Some(None) => Plain::said(StatusCode::INTERNAL_SERVER_ERROR, "the report has no form in JSON"),
        None => Plain::said(StatusCode::SERVICE_UNAVAILABLE, NO_CORE),
    }
}

fn events(site: &Site, method: &Method) -> Plain {
    const EVENTS: &str = "text/event-stream";
    if *method == Method::HEAD {
        return Plain::live(EVENTS, Bytes::new());
    }
    match site.streams.take() {
        Some(place) => Plain::live(EVENTS, Body::events(site.feed.listen(place))),
        None => Plain::said(StatusCode::SERVICE_UNAVAILABLE, "too many listen already: ask /report"),
    }
}
