//! The shape that every elementwise function of one argument has.

/// Rows of a table of derivatives: each makes a [`Function`](crate::Function) and the `Var` method that applies it.
///
/// `Exp exp() output |y, g| g * y;` says that `exp` keeps its output y and that its gradient is `g · y`.
/// `with Kernel` in front of the rule names the fused kernel `f(saved, g)` that computes the same in one pass; it is
/// used unless the result will be differentiated again. The rule itself is written in `Var` operations, so that
/// derivatives of any order follow from it.
macro_rules! unary {
    ($(
        $(#[$doc:meta])*
        $Name:ident $method:ident($($p:ident: $t:ty),*) $what:ident $(with $kernel:ident)? |$v:ident, $g:ident| $rule:expr;
    )*) => {$(
        struct $Name($($t),*);
        impl $crate::Function for $Name {
            fn name(&self) -> &'static str {
                stringify!($method)
            }
            fn forward(
                &self,
                x: &[ferrograd_tensor::Tensor],
                saved: &mut $crate::Saved,
            ) -> Vec<ferrograd_tensor::Tensor> {
                let $Name($($p),*) = self;
                $crate::ops::unary::unary!(@save $what saved);
                vec![x[0].$method($(*$p),*)]
            }
            fn backward(&self, saved: &$crate::Saved, g: &[Option<$crate::Var>]) -> Vec<Option<$crate::Var>> {
                let Some($g) = &g[0] else { return vec![None] };
                let $Name($($p),*) = self;
                $(let _ = $p;)*
                let $v = $crate::ops::unary::unary!(@saved $what saved);
                $(
                    if !saved.create_graph() {
                        use ferrograd_tensor::backend::Binary;
                        return vec![Some($crate::Var::constant($v.tensor().binary_grad(Binary::$kernel, $g.tensor())))];
                    }
                )?
                vec![Some($rule)]
            }
        }
        impl $crate::Var {
            $(#[$doc])*
            #[track_caller]
            pub fn $method(&self, $($p: $t),*) -> $crate::Var {
                $crate::Function::apply1($Name($($p),*), &[self])
            }
        }
    )*};
    (@save input $saved:ident) => { $saved.save_input(0) };
    (@save output $saved:ident) => { $saved.save_output(0) };
    (@save nothing $saved:ident) => { let _ = &$saved; };
    (@saved input $saved:ident) => { $saved.input(0) };
    (@saved output $saved:ident) => { $saved.output(0) };
    (@saved nothing $saved:ident) => {{ let _: &$crate::Saved = $saved; }};
}
pub(super) use unary;
