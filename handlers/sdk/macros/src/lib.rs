//! Attribute `#[handler]`, which `greenroom-handler` exports.
//!
//! The trait's types have no defaults in Rust, so an attribute writes what an `impl Handler`
//! leaves out. It reads names at the top of the block, and hands every token of the author on as
//! it is: places in errors stay the author's.

use proc_macro::{Delimiter, Group, Span, TokenStream, TokenTree};

/// Fills in what an `impl Handler` leaves out.
///
/// | left out | stands for |
/// | --- | --- |
/// | `type State` | `()`: the service keeps no state |
/// | `type Config` | `NoConfig`: it has no settings |
/// | `fn new` | without settings `Self {}`; with settings they become the value by `From` |
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    let is_impl = tokens.iter().any(|t| is_word(t, "impl")) && tokens.iter().any(|t| is_word(t, "Handler"));
    let body = match tokens.pop() {
        Some(TokenTree::Group(body)) if is_impl && body.delimiter() == Delimiter::Brace => body,
        _ => return refusal("`#[handler]` stands in front of an `impl Handler for …`"),
    };
    if let Some(argument) = arguments.into_iter().next() {
        return refusal_at(argument.span(), "`#[handler]` takes no arguments");
    }
    if let Some((place, name)) = never_called(&body) {
        let why = format!(
            "`fn {name}` is never called, as `fn handle` takes all actions: call it from there, or leave one of \
             them out"
        );
        return refusal_at(place, &why);
    }
    let own = tokens.iter().rev().find(|t| matches!(t, TokenTree::Ident(_)));
    let place = own.map_or_else(Span::call_site, |name| name.span().resolved_at(Span::call_site()));
    let more = left_out(&body);
    let mut filled = body.stream();
    filled.extend(more.parse::<TokenStream>().unwrap_or_default().into_iter().map(|t| placed(t, place)));
    let mut group = Group::new(Delimiter::Brace, filled);
    group.set_span(body.span());
    tokens.push(TokenTree::Group(group));
    tokens.into_iter().collect()
}

/// Items that the block leaves out, as text.
fn left_out(body: &Group) -> String {
    let items: Vec<_> = body.stream().into_iter().collect();
    // Bodies of functions are groups, so pairs of words here are items of the block.
    let says = |kind, name| items.windows(2).any(|pair| is_word(&pair[0], kind) && is_word(&pair[1], name));
    let has_config = says("type", "Config");
    let mut more = String::new();
    if !says("type", "State") {
        more += "type State = ();";
    }
    if !has_config {
        more += "type Config = ::greenroom_handler::NoConfig;";
    }
    if !says("fn", "new") {
        more += match has_config {
            true => {
                "fn new(config: Self::Config) -> ::core::result::Result<Self, ::std::string::String> {
                    ::core::result::Result::Ok(<Self as ::greenroom_handler::export::FromSettings<Self::Config>>::from_settings(config))
                }"
            }
            false => {
                "fn new(_: Self::Config) -> ::core::result::Result<Self, ::std::string::String> {
                    ::core::result::Result::Ok(Self {})
                }"
            }
        };
    }
    more
}

/// Methods that get their actions from the `handle` that the trait provides.
const CALLED_BY_HANDLE: [&str; 5] = ["opened", "message", "closed", "timer", "other"];

/// Method that no action reaches: `handle` is written, and hands nothing on. One that names the
/// method, or `self`, may do so in a way that is not seen here.
fn never_called(body: &Group) -> Option<(Span, &'static str)> {
    let items: Vec<_> = body.stream().into_iter().collect();
    let found = |name: &str| items.windows(2).position(|p| is_word(&p[0], "fn") && is_word(&p[1], name));
    let is_body = |t: &&TokenTree| matches!(t, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace);
    let handle = items[found("handle")?..].iter().find(is_body)?;
    let name = CALLED_BY_HANDLE.into_iter().find(|name| found(name).is_some() && !names(handle, name))?;
    (!names(handle, "self")).then(|| (items[found(name).unwrap_or(0) + 1].span(), name))
}

/// Whether a token is this word, or has it inside.
fn names(token: &TokenTree, word: &str) -> bool {
    match token {
        TokenTree::Group(group) => group.stream().into_iter().any(|inner| names(&inner, word)),
        other => is_word(other, word),
    }
}

/// Whether a token is this word.
fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == word)
}

/// Token that errors point to the author's type for.
fn placed(token: TokenTree, place: Span) -> TokenTree {
    let mut token = match token {
        TokenTree::Group(group) => {
            let inner = group.stream().into_iter().map(|t| placed(t, place)).collect();
            TokenTree::Group(Group::new(group.delimiter(), inner))
        }
        other => other,
    };
    token.set_span(place);
    token
}

/// Error of the build, at the attribute.
fn refusal(why: &str) -> TokenStream {
    refusal_at(Span::call_site(), why)
}

/// Error of the build, at a place.
fn refusal_at(place: Span, why: &str) -> TokenStream {
    let text = format!("::core::compile_error!({why:?});");
    let tokens: TokenStream = text.parse().unwrap_or_default();
    tokens.into_iter().map(|t| placed(t, place)).collect()
}
