//! The status page, part of the executable.

/// A file of the page.
pub(super) struct File {
    pub(super) content_type: &'static str,
    pub(super) bytes: &'static [u8],
}

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards/page/dist/", $name))
    };
}

/// The file at `path`.
pub(super) fn file(path: &str) -> Option<File> {
    let (content_type, bytes): (_, &[u8]) = match path {
        "/" => ("text/html; charset=utf-8", file!("index.html")),
        "/app.js" => ("text/javascript; charset=utf-8", file!("app.js")),
        "/app.css" => ("text/css; charset=utf-8", file!("app.css")),
        _ => return None,
    };
    Some(File { content_type, bytes })
}
