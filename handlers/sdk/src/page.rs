//! Pages that a service shows to browsers.

use std::borrow::Cow;

/// Page that a handler serves.
///
/// ```
/// use greenroom_handler::Page;
///
/// let page = Page::html("<h1>Hello</h1>");
/// assert_eq!(page.content_type, "text/html; charset=utf-8");
/// let script = Page { content_type: "text/javascript".into(), bytes: b"alert(1)".into() };
/// assert_eq!(&*script.bytes, b"alert(1)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Value of Content-Type: visible ASCII and spaces.
    pub content_type: Cow<'static, str>,
    /// Bytes of the page.
    pub bytes: Cow<'static, [u8]>,
}

impl Page {
    /// Page of HTML in UTF-8.
    pub fn html(text: impl Into<Cow<'static, str>>) -> Page {
        let bytes = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Page { content_type: "text/html; charset=utf-8".into(), bytes }
    }
}
