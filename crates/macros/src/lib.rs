//! `#[derive(Module)]`.
#![forbid(unsafe_code)]

use proc_macro::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, LitStr, parse_macro_input};

/// Implements `Module` for a struct: every field is a module (a parameter, a buffer, a layer, a vector or option of
/// them, or a plain number, which holds nothing), visited in the order of declaration under the field's name.
///
/// On a field, `#[module(skip)]` leaves it out, `#[module(rename = "name")]` gives it another name in the state dict,
/// and `#[module(flatten)]` puts its parts under the struct's own path. On the struct, `#[module(extra_repr)]` takes what
/// `describe` shows of its settings from the struct's own method `extra_repr(&self) -> String`.
#[proc_macro_derive(Module, attributes(module))]
pub fn derive_module(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.span(), "Module can be derived for structs; for an enum write `visit` by hand"));
    };
    let fields: Vec<&Field> = match &data.fields {
        Fields::Named(f) => f.named.iter().collect(),
        Fields::Unnamed(f) => f.unnamed.iter().collect(),
        Fields::Unit => Vec::new(),
    };
    let mut visits = Vec::new();
    for (i, field) in fields.into_iter().enumerate() {
        let access = match &field.ident {
            Some(name) => quote!(self.#name),
            None => {
                let index = syn::Index::from(i);
                quote!(self.#index)
            }
        };
        let mut name =
            field.ident.as_ref().map_or_else(|| i.to_string(), |n| n.to_string().trim_start_matches("r#").into());
        let (mut skip, mut flatten) = (false, false);
        for attr in field.attrs.iter().filter(|a| a.path().is_ident("module")) {
            attr.parse_nested_meta(|meta| {
                if meta.path.is_ident("skip") {
                    skip = true;
                } else if meta.path.is_ident("flatten") {
                    flatten = true;
                } else if meta.path.is_ident("rename") {
                    name = meta.value()?.parse::<LitStr>()?.value();
                } else {
                    return Err(meta.error("expected skip, flatten or rename = \"…\""));
                }
                Ok(())
            })?;
        }
        if skip {
            continue;
        }
        visits.push(match flatten {
            true => quote_spanned!(field.ty.span()=> ::ferrograd::nn::Module::visit(&#access, visitor);),
            false => quote_spanned!(field.ty.span()=> visitor.field(#name, &#access);),
        });
    }
    let mut extra_repr = quote!();
    for attr in input.attrs.iter().filter(|a| a.path().is_ident("module")) {
        attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("extra_repr") {
                return Err(meta.error("expected extra_repr"));
            }
            // The inherent method comes before the trait's.
            extra_repr = quote!(
                fn extra_repr(&self) -> ::std::string::String {
                    Self::extra_repr(self)
                }
            );
            Ok(())
        })?;
    }
    let ident = &input.ident;
    let (generics, types, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::ferrograd::nn::Module for #ident #types #bounds {
            fn visit(&self, visitor: &mut ::ferrograd::nn::Visitor<'_>) {
                #(#visits)*
            }
            #extra_repr
        }
    })
}
