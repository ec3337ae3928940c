//! Modules import in one direction: a circle of modules is one module that was cut badly.
//!
//! Every crate is parsed, and every path is followed through re-exports to the module that defines
//! what it names. What any module of a folder uses counts for the folder, and two neighbours may
//! not use each other. A façade's `pub use` is not a use. Tests may use what they like.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Item, UseTree, visit::Visit};

type ModulePath = Vec<String>;

type Edges = BTreeMap<ModulePath, BTreeSet<ModulePath>>;

/// What one module says: the paths that it uses, and the names that it brings into scope.
#[derive(Default)]
struct Module {
    children: BTreeSet<String>,
    defined: BTreeSet<String>,
    /// Name → the path that it was imported by.
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    used: BTreeSet<Vec<String>>,
}

/// One crate's modules by their path; the root's path is empty.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    /// Parses the crate whose root is `root` (`lib.rs` or `main.rs`); test modules are left out.
    fn read(root: &Path) -> Self {
        let mut read = Self::default();
        let folder = root.parent().unwrap().to_owned();
        read.file(root, &folder, &Vec::new());
        read
    }

    fn file(&mut self, file: &Path, folder: &Path, path: &ModulePath) {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.items(&parsed.items, folder, path);
    }

    /// `folder` is where the module's children lie.
    fn items(&mut self, items: &[Item], folder: &Path, path: &ModulePath) {
        let mut module = Module::default();
        let mut below: Vec<(&syn::ItemMod, ModulePath)> = Vec::new();
        for item in items {
            match item {
                Item::Mod(child) if tests_only(&child.attrs) => {}
                Item::Mod(child) => {
                    module.children.insert(child.ident.to_string());
                    let mut at = path.clone();
                    at.push(child.ident.to_string());
                    below.push((child, at));
                }
                Item::Use(import) => {
                    let facade = !matches!(import.vis, syn::Visibility::Inherited);
                    module.import(&import.tree, &mut Vec::new(), facade);
                }
                item if attributes(item).is_some_and(tests_only) => {}
                item => {
                    if let Some(name) = defined(item) {
                        module.defined.insert(name);
                    }
                    Paths(&mut module.used).visit_item(item);
                }
            }
        }
        self.modules.insert(path.clone(), module);
        for (child, at) in below {
            let name = child.ident.to_string();
            match &child.content {
                Some((_, items)) => self.items(items, &folder.join(&name), &at),
                None => {
                    let flat = folder.join(format!("{name}.rs"));
                    let file = if flat.exists() { flat } else { folder.join(&name).join("mod.rs") };
                    self.file(&file, &folder.join(&name), &at);
                }
            }
        }
    }

    /// The module that defines what `path` names in `at`; none for other crates and locals.
    fn resolve(&self, at: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        let first = path.first()?;
        if depth > 16 {
            return None;
        }
        let module = self.modules.get(at)?;
        let rest = &path[1..];
        match first.as_str() {
            "crate" => self.walk(Vec::new(), rest, depth),
            "self" => self.walk(at.clone(), rest, depth),
            "super" => self.walk(at[..at.len().checked_sub(1)?].to_vec(), rest, depth),
            _ if module.children.contains(first) => self.walk(at.clone(), path, depth),
            _ if module.defined.contains(first) => Some(at.clone()),
            _ => {
                let import = module.imports.get(first)?;
                if import.first() == Some(first) && import.len() == 1 {
                    return None;
                }
                let whole: Vec<String> = import.iter().chain(rest).cloned().collect();
                self.resolve(at, &whole, depth + 1)
            }
        }
    }

    fn walk(&self, from: ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        let Some(first) = path.first() else { return Some(from) };
        let module = self.modules.get(&from)?;
        if first == "super" {
            return self.walk(from[..from.len().checked_sub(1)?].to_vec(), &path[1..], depth);
        }
        if module.children.contains(first) {
            let mut below = from;
            below.push(first.clone());
            return self.walk(below, &path[1..], depth);
        }
        if module.defined.contains(first) {
            return Some(from);
        }
        if module.imports.contains_key(first) {
            return self.resolve(&from, path, depth + 1);
        }
        module
            .globs
            .iter()
            .filter_map(|glob| {
                let whole: Vec<String> = glob.iter().chain(path).cloned().collect();
                self.resolve(&from, &whole, depth + 1)
            })
            .next()
            .or(Some(from))
    }

    /// Which module uses which others.
    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (at, module) in &self.modules {
            let found = module.used.iter().filter_map(|path| self.resolve(at, path, 0));
            edges.insert(at.clone(), found.filter(|to| to != at).collect());
        }
        edges
    }
}

impl Module {
    fn import(&mut self, tree: &UseTree, prefix: &mut Vec<String>, facade: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix, facade);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, prefix, facade);
                }
            }
            UseTree::Glob(_) => self.globs.push(prefix.clone()),
            UseTree::Name(name) => self.bring(&name.ident.to_string(), &name.ident, prefix, facade),
            UseTree::Rename(name) => {
                self.bring(&name.ident.to_string(), &name.rename, prefix, facade);
            }
        }
    }

    fn bring(&mut self, name: &str, known_as: &syn::Ident, prefix: &[String], facade: bool) {
        let mut path = prefix.to_vec();
        let mut known_as = known_as.to_string();
        if name == "self" {
            if known_as == "self" {
                known_as = path.last().cloned().unwrap_or_default();
            }
        } else {
            path.push(name.to_owned());
        }
        if !facade {
            self.used.insert(path.clone());
        }
        self.imports.insert(known_as, path);
    }
}

/// Every path in code, also in the arguments of macros, which are tokens alone.
struct Paths<'a>(&'a mut BTreeSet<Vec<String>>);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.insert(path.segments.iter().map(|s| s.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

impl Paths<'_> {
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.end(&mut path);
                    self.tokens(group.stream());
                }
                _ => self.end(&mut path),
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.0.insert(std::mem::take(path));
        }
    }
}

fn attributes(item: &Item) -> Option<&[syn::Attribute]> {
    Some(match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        _ => return None,
    })
}

fn defined(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(i) => i.ident.to_string(),
        Item::Enum(i) => i.ident.to_string(),
        Item::Fn(i) => i.sig.ident.to_string(),
        Item::Static(i) => i.ident.to_string(),
        Item::Struct(i) => i.ident.to_string(),
        Item::Trait(i) => i.ident.to_string(),
        Item::Type(i) => i.ident.to_string(),
        Item::Union(i) => i.ident.to_string(),
        Item::Macro(i) => i.ident.as_ref()?.to_string(),
        _ => return None,
    })
}

fn tests_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            list.path.is_ident("cfg") && list.tokens.to_string().trim() == "test"
        }
        _ => false,
    })
}

/// Groups of nodes that reach each other, each with two or more.
fn circles(edges: &Edges) -> BTreeSet<BTreeSet<ModulePath>> {
    let reach: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
        edges.keys().map(|from| (from, reached(edges, from))).collect();
    let mut found = BTreeSet::new();
    for (from, to) in &reach {
        let circle: BTreeSet<ModulePath> = to
            .iter()
            .filter(|other| *other != from && reach.get(*other).is_some_and(|r| r.contains(from)))
            .map(|other| (*other).clone())
            .chain([(*from).clone()])
            .collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found
}

fn reached<'a>(edges: &'a Edges, from: &'a ModulePath) -> BTreeSet<&'a ModulePath> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        for to in edges.get(at).into_iter().flatten() {
            if seen.insert(to) {
                next.push(to);
            }
        }
    }
    seen
}

/// The same edges between the children of each module: what a child's folder uses, the child uses.
fn folders(edges: &Edges) -> Edges {
    let mut lifted = Edges::new();
    for (from, targets) in edges {
        for to in targets {
            let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
            if from.len() > common && to.len() > common {
                lifted.entry(from[..=common].to_vec()).or_default().insert(to[..=common].to_vec());
            }
        }
    }
    lifted
}

fn roots(workspace: &Path) -> Vec<PathBuf> {
    let mut crates: Vec<PathBuf> = fs::read_dir(workspace.join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain(["initramfs", "tests", "tests/support"].map(|name| workspace.join(name)))
        .collect();
    crates.sort();
    crates
        .iter()
        .flat_map(|folder| ["src/lib.rs", "src/main.rs"].map(|root| folder.join(root)))
        .filter(|root| root.exists())
        .collect()
}

fn show(path: &ModulePath) -> String {
    path.join("::")
}

#[test]
fn no_two_neighbours_use_each_other() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let roots = roots(&workspace);
    assert!(roots.len() > 15, "{roots:?}");
    let mut found = Vec::new();
    for root in roots {
        let edges = folders(&Crate::read(&root).edges());
        found.extend(circles(&edges).into_iter().map(|circle| {
            let uses = circle.iter().map(|from| {
                let to = edges[from].iter().filter(|to| circle.contains(*to)).map(show);
                format!("  {} uses {}", show(from), to.collect::<Vec<_>>().join(", "))
            });
            let root = root.strip_prefix(&workspace).unwrap().display();
            format!("{root}:\n{}", uses.collect::<Vec<_>>().join("\n"))
        }));
    }
    assert!(found.is_empty(), "modules in a circle:\n{}", found.join("\n"));
}

#[test]
fn a_circle_through_a_re_export_and_a_macro_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a; mod b; mod c; pub use a::A;");
    write("a.rs", "pub struct A; pub fn f() { assert!(crate::b::inner::g()); }");
    write("b/mod.rs", "pub mod inner;");
    write("b/inner.rs", "use crate::A; pub fn g() -> bool { let _ = A; true }");
    write("c.rs", "use crate::A; #[cfg(test)] mod tests { use crate::b; }");
    let edges = folders(&Crate::read(&folder.path().join("lib.rs")).edges());
    let circle = BTreeSet::from([vec!["a".to_owned()], vec!["b".to_owned()]]);
    assert_eq!(circles(&edges), BTreeSet::from([circle]));
}
