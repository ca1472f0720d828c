//! Syntax: what a walk over one file's tree finds.
//!
//! Promises: test code (`#[cfg(test)]`, `#[test]`) is told apart; `super` is resolved to the module it means.
//! Never: sees into macro calls, so what they hold is judged by the compiler's lints alone.

use syn::{
    spanned::Spanned,
    visit::{self, Visit},
};

use super::tree::File;

/// A function with what the laws measure.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
    /// `self` not counted.
    pub(crate) parameters: usize,
}

/// A path as code names it, `crate` and `super` resolved: `["crate", "store", "Store"]`, `["std", "fs", "read"]`.
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    pub(crate) test: bool,
}

#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) functions: Vec<Function>,
    pub(crate) paths: Vec<Named>,
    /// Names of types, traits, modules and their lines.
    pub(crate) names: Vec<(String, usize)>,
    /// First and last line of each inline test module.
    pub(crate) test_modules: Vec<(usize, usize)>,
}

pub(crate) fn walk(file: &File) -> Findings {
    let mut walker =
        Walker { found: Findings::default(), module: file.module.clone(), test: !file.production };
    walker.visit_file(&file.syntax);
    walker.found
}

struct Walker {
    found: Findings,
    module: Vec<String>,
    test: bool,
}

impl Walker {
    fn function(&mut self, signature: &syn::Signature, whole: proc_macro2::Span) {
        let typed = |input: &&syn::FnArg| matches!(input, syn::FnArg::Typed(_));
        let from = signature.span().start().line;
        self.found.functions.push(Function {
            name: signature.ident.to_string(),
            line: from,
            lines: whole.end().line + 1 - from,
            parameters: signature.inputs.iter().filter(typed).count(),
        });
    }

    fn named(&mut self, name: &syn::Ident) {
        self.found.names.push((name.to_string(), name.span().start().line));
    }

    fn path(&mut self, segments: &[String], line: usize) {
        let mut resolved = Vec::new();
        let mut base = self.module.clone();
        let mut rest = segments;
        match segments.first().map(String::as_str) {
            Some("crate") => resolved.push("crate".to_owned()),
            Some("self") => {
                rest = &segments[1..];
                resolved.push("crate".to_owned());
                resolved.append(&mut base);
            }
            Some("super") => {
                while rest.first().is_some_and(|part| part == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
                resolved.push("crate".to_owned());
                resolved.append(&mut base);
            }
            _ => {}
        }
        let skip = usize::from(resolved.len() == 1 && rest.first().is_some_and(|p| p == "crate"));
        resolved.extend(rest[skip..].iter().cloned());
        self.found.paths.push(Named { segments: resolved, line, test: self.test });
    }

    fn use_tree(&mut self, tree: &syn::UseTree, head: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                head.push(path.ident.to_string());
                self.use_tree(&path.tree, head);
                head.pop();
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.use_tree(item, head));
            }
            syn::UseTree::Name(leaf) => self.leaf(leaf.ident.to_string(), leaf.span(), head),
            syn::UseTree::Rename(leaf) => self.leaf(leaf.ident.to_string(), leaf.span(), head),
            syn::UseTree::Glob(leaf) => self.leaf("*".into(), leaf.span(), head),
        }
    }

    fn leaf(&mut self, last: String, span: proc_macro2::Span, head: &[String]) {
        let segments: Vec<String> = head.iter().cloned().chain([last]).collect();
        self.path(&segments, span.start().line);
    }
}

pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let test = attribute.path().segments.last().is_some_and(|last| last.ident == "test");
        let cfg = attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|ident| ident == "test");
        test || cfg
    })
}

impl<'ast> Visit<'ast> for Walker {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.named(&item.ident);
        let before = self.test;
        if is_test(&item.attrs) && item.content.is_some() {
            self.test = true;
            if !before {
                let span = item.span();
                self.found.test_modules.push((span.start().line, span.end().line));
            }
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
        self.test = before;
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let before = self.test;
        self.test |= is_test(&item.attrs);
        self.function(&item.sig, item.block.span());
        visit::visit_item_fn(self, item);
        self.test = before;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item.span());
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.named(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.named(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.named(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.named(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.path(&segments, path.span().start().line);
        }
        visit::visit_path(self, path);
    }
}
