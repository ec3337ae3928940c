//! From a package's sources to the codes in them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Block, Expr, Fields, ImplItem, Item, ItemImpl, Lit, Local, Macro, Meta, Pat, Stmt,
    Token, Type, punctuated::Punctuated, visit::Visit,
};

use super::is_code;
use crate::sources::{files, root};

/// One place that gives a code.
pub struct Meaning {
    pub code: String,
    /// The texts of the error; several where variants share the code.
    pub what: Vec<String>,
    /// The advice.
    pub next: Vec<String>,
    pub package: String,
    /// The file.
    pub place: String,
}

/// The texts of an error type: by variant, or under the empty name for a struct.
type Texts = BTreeMap<String, String>;

/// A package's sources without its tests.
pub fn production(source: &Path) -> Vec<PathBuf> {
    let mut found = files(source, &[".rs"]);
    found.retain(|path| {
        let inner = path.strip_prefix(source).unwrap();
        inner.iter().all(|part| part != "tests" && part != "tests.rs")
    });
    found
}

pub fn package(name: &str, source: &Path) -> Vec<Meaning> {
    let parsed: Vec<(String, syn::File)> = production(source)
        .iter()
        .map(|path| {
            let place = path.strip_prefix(root()).unwrap().display().to_string();
            let file = syn::parse_file(&fs::read_to_string(path).unwrap())
                .unwrap_or_else(|e| panic!("{place}: {e}"));
            (place, file)
        })
        .collect();
    let mut errors: BTreeMap<(String, String), Texts> = BTreeMap::new();
    for (place, file) in &parsed {
        for item in &file.items {
            if let Some((kind, texts)) = texts_of_errors(item) {
                errors.insert((kind, place.clone()), texts);
            }
        }
    }
    let mut meanings = Vec::new();
    for (place, file) in &parsed {
        let mut reader = Reader {
            package: name,
            place,
            errors: &errors,
            about: vec![],
            locals: BTreeMap::new(),
            meanings: &mut meanings,
        };
        reader.visit_file(file);
    }
    meanings
}

/// What `#[error]` says of each variant; where it is `transparent`, the variant's own comment.
fn texts_of_errors(item: &Item) -> Option<(String, Texts)> {
    let text = |attributes: &[Attribute]| {
        let error = attributes.iter().find(|attribute| attribute.path().is_ident("error"));
        let literal = error.and_then(|attribute| match &attribute.meta {
            Meta::List(list) => list.tokens.clone().into_iter().next(),
            _ => None,
        });
        literal
            .and_then(|token| syn::parse_str::<syn::LitStr>(&token.to_string()).ok())
            .map_or_else(|| comment(attributes), |literal| literal.value())
    };
    match item {
        Item::Enum(item) => {
            let texts = item.variants.iter();
            let texts = texts.map(|variant| (variant.ident.to_string(), text(&variant.attrs)));
            Some((item.ident.to_string(), texts.collect()))
        }
        Item::Struct(item) if !matches!(item.fields, Fields::Unit) => {
            Some((item.ident.to_string(), [(String::new(), text(&item.attrs))].into()))
        }
        _ => None,
    }
}

/// The first paragraph of a documentation comment.
fn comment(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

struct Reader<'a> {
    package: &'a str,
    place: &'a str,
    errors: &'a BTreeMap<(String, String), Texts>,
    /// The comments of the functions and constants around.
    about: Vec<String>,
    /// What the function's variables are set to.
    locals: BTreeMap<String, Vec<String>>,
    meanings: &'a mut Vec<Meaning>,
}

impl Reader<'_> {
    fn found(&mut self, code: String, what: Vec<String>, next: Vec<String>) {
        let (package, place) = (self.package.to_owned(), self.place.to_owned());
        self.meanings.push(Meaning { code, what, next, package, place });
    }

    /// The text of a variant of an error type, of this file or else of this package.
    fn text_of(&self, kind: &str, variant: &str) -> Vec<String> {
        let here = self.errors.get(&(kind.to_owned(), self.place.to_owned()));
        let texts = here.or_else(|| {
            let mut same = self.errors.iter().filter(|((name, _), _)| name == kind);
            let found = same.next();
            assert!(same.next().is_none(), "{}: there are two types {kind}", self.place);
            found.map(|(_, texts)| texts)
        });
        let texts = texts.unwrap_or_else(|| panic!("{}: no type {kind}", self.place));
        match variant {
            // A code of the type as a whole.
            "" => texts.values().cloned().collect(),
            variant => texts.get(variant).cloned().into_iter().collect(),
        }
    }

    fn explain(&mut self, item: &ItemImpl) {
        let own = match &*item.self_ty {
            Type::Path(path) => path.path.segments.last().unwrap().ident.to_string(),
            _ => panic!("{}: Explain for no plain type", self.place),
        };
        let arms = |wanted: &str| -> Vec<(Vec<Variant>, Expr)> {
            let function = item.items.iter().find_map(|item| match item {
                ImplItem::Fn(function) if function.sig.ident == wanted => Some(function),
                _ => None,
            });
            arms(&function.unwrap().block, &own)
        };
        let help = arms("help");
        for (variants, body) in arms("code") {
            let codes: Vec<_> =
                self.texts(&body).into_iter().filter(|text| is_code(text)).collect();
            for code in codes {
                let what = variants.iter().flat_map(|v| self.text_of(&v.0, &v.1)).collect();
                let advice = help.iter().filter(|(of, _)| overlap(of, &variants));
                let next = advice.flat_map(|(_, body)| self.texts(body)).collect();
                self.found(code, what, next);
            }
        }
    }

    /// The texts that an expression may become, with placeholders as in the source.
    fn texts(&self, expr: &Expr) -> Vec<String> {
        match expr {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => vec![text.value()],
                _ => vec![],
            },
            Expr::Macro(call) => {
                let first = call.mac.tokens.clone().into_iter().next();
                let text = first.and_then(|t| syn::parse_str::<syn::LitStr>(&t.to_string()).ok());
                text.map(|text| text.value()).into_iter().collect()
            }
            Expr::Path(path) => match path.path.get_ident().map(ToString::to_string) {
                Some(name) => match self.locals.get(&name) {
                    Some(texts) => texts.clone(),
                    None => vec![format!("{{{name}}}")],
                },
                None => vec![],
            },
            Expr::MethodCall(call) if call.method == "help" || call.method == "code" => {
                vec!["as the cause says".into()]
            }
            Expr::MethodCall(call) => self.texts(&call.receiver),
            Expr::Reference(inner) => self.texts(&inner.expr),
            Expr::Paren(inner) => self.texts(&inner.expr),
            Expr::Unary(inner) => self.texts(&inner.expr),
            Expr::Return(inner) => inner.expr.iter().flat_map(|e| self.texts(e)).collect(),
            Expr::Block(block) => last(&block.block).map(|e| self.texts(e)).unwrap_or_default(),
            Expr::Match(all) => all.arms.iter().flat_map(|arm| self.texts(&arm.body)).collect(),
            Expr::If(both) => {
                let mut texts = last(&both.then_branch).map(|e| self.texts(e)).unwrap_or_default();
                texts.extend(both.else_branch.iter().flat_map(|(_, e)| self.texts(e)));
                texts
            }
            _ => vec![],
        }
    }

    /// What is inside a function or constant, which `comment` describes.
    fn inside(&mut self, comment: String, visit: impl FnOnce(&mut Self)) {
        let locals = std::mem::take(&mut self.locals);
        self.about.push(comment);
        visit(self);
        self.about.pop();
        self.locals = locals;
    }
}

/// A type and one of its variants; an empty variant is all of them.
type Variant = (String, String);

fn overlap(these: &[Variant], those: &[Variant]) -> bool {
    let same =
        |a: &Variant, b: &Variant| a.0 == b.0 && (a.1 == b.1 || a.1.is_empty() || b.1.is_empty());
    these.iter().any(|a| those.iter().any(|b| same(a, b)))
}

fn last(block: &Block) -> Option<&Expr> {
    match block.stmts.last()? {
        Stmt::Expr(expr, _) => Some(expr),
        _ => None,
    }
}

/// The arms of a function that matches on `self`, or its one value.
fn arms(block: &Block, own: &str) -> Vec<(Vec<Variant>, Expr)> {
    let mut value = last(block).unwrap();
    while let Expr::MethodCall(call) = value {
        value = &call.receiver;
    }
    match value {
        Expr::Match(all) => {
            let arms = all.arms.iter();
            arms.map(|arm| (variants(&arm.pat, own), (*arm.body).clone())).collect()
        }
        value => vec![(vec![(own.to_owned(), String::new())], value.clone())],
    }
}

fn variants(pattern: &Pat, own: &str) -> Vec<Variant> {
    let path = match pattern {
        Pat::Or(any) => return any.cases.iter().flat_map(|case| variants(case, own)).collect(),
        Pat::Guard(guarded) => return variants(&guarded.pat, own),
        Pat::Paren(inner) => return variants(&inner.pat, own),
        Pat::Reference(inner) => return variants(&inner.pat, own),
        Pat::Struct(pattern) => &pattern.path,
        Pat::TupleStruct(pattern) => &pattern.path,
        Pat::Path(pattern) => &pattern.path,
        _ => return vec![(own.to_owned(), String::new())],
    };
    let names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
    match names.as_slice() {
        [.., kind, variant] if kind == "Self" => vec![(own.to_owned(), variant.clone())],
        [.., kind, variant] => vec![(kind.clone(), variant.clone())],
        _ => vec![],
    }
}

fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => attribute.path().is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let of = item.trait_.as_ref().and_then(|(path, _)| path.segments.last());
        if of.is_some_and(|name| name.ident == "Explain") {
            self.explain(item);
        } else {
            syn::visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.inside(comment(&item.attrs), |own| syn::visit::visit_item_fn(own, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.inside(comment(&item.attrs), |own| syn::visit::visit_impl_item_fn(own, item));
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.inside(comment(&item.attrs), |own| syn::visit::visit_item_const(own, item));
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if let (Pat::Ident(name), Some(value)) = (&local.pat, &local.init) {
            let texts = self.texts(&value.expr);
            if !texts.is_empty() {
                self.locals.insert(name.ident.to_string(), texts);
            }
        }
        syn::visit::visit_local(self, local);
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        let mut arguments = call.args.iter();
        let is_code = |argument: &&Expr| match argument {
            Expr::Lit(literal) => matches!(&literal.lit, Lit::Str(text) if is_code(&text.value())),
            _ => false,
        };
        let Some(code) = arguments.by_ref().find(is_code) else {
            return syn::visit::visit_expr_call(self, call);
        };
        let mut texts = || arguments.next().map(|next| self.texts(next)).unwrap_or_default();
        let (mut what, next) = (texts(), texts());
        // A text that the caller gives: what it is about.
        if let ([only], Some(about)) = (&mut what[..], self.about.last())
            && only.starts_with('{')
            && only.find('}') == Some(only.len() - 1)
            && !about.is_empty()
        {
            *only = format!("{about} {only}");
        }
        self.found(self.texts(code).concat(), what, next);
    }

    /// A code and its advice.
    fn visit_expr_tuple(&mut self, tuple: &'ast syn::ExprTuple) {
        match (tuple.elems.first().map(|first| self.texts(first)), tuple.elems.get(1)) {
            (Some(code), Some(next)) if code.len() == 1 && is_code(&code[0]) => {
                let about = self.about.last().cloned().into_iter().collect();
                self.found(code.concat(), about, self.texts(next));
            }
            _ => syn::visit::visit_expr_tuple(self, tuple),
        }
    }

    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        if is_code(&literal.value()) {
            let about = self.about.last().cloned().into_iter().collect();
            self.found(literal.value(), about, vec!["as the message says".into()]);
        }
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        if call.path.is_ident("codes") {
            return self.boot_codes(call);
        }
        let arguments = Punctuated::<Expr, Token![,]>::parse_terminated;
        for argument in call.parse_body_with(arguments).into_iter().flatten() {
            self.visit_expr(&argument);
        }
    }
}

impl Reader<'_> {
    /// `NAME = NUMBER, "title", "cause", "cure";` for each.
    fn boot_codes(&mut self, call: &Macro) {
        let tokens: Vec<String> =
            call.tokens.clone().into_iter().map(|token| token.to_string()).collect();
        for (at, _) in tokens.iter().enumerate().filter(|(_, token)| *token == "=") {
            let text = |offset: usize| {
                syn::parse_str::<syn::LitStr>(&tokens[at + offset]).unwrap().value()
            };
            let what = vec![text(3), text(5)];
            self.found(format!("FC-{:0>3}", tokens[at + 1]), what, vec![text(7)]);
        }
    }
}
