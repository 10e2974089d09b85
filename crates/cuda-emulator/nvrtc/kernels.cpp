#include "kernels.h"

#include <cctype>

namespace {

// Walks through C++ text token by token, as far as finding declarations needs: identifiers, literals, single marks.
class Tokens {
 public:
  explicit Tokens(const std::string &text) : text_(text) { next(); }
  const std::string &token() const { return token_; }
  bool done() const { return token_.empty(); }

  void next() {
    while (at_ < text_.size()) {
      if (text_[at_] == '\n') line_start_ = true, at_++;
      else if (isspace(static_cast<unsigned char>(text_[at_]))) at_++;
      else if (text_[at_] == '#' && line_start_) skip_line();  // a line marker or a pragma
      else break;
    }
    line_start_ = false;
    const size_t start = at_;
    if (at_ < text_.size()) {
      if (is_word(text_[at_])) while (at_ < text_.size() && is_word(text_[at_])) at_++;
      else if (text_[at_] == '"' || text_[at_] == '\'') skip_literal(text_[at_]);
      else at_++;
    }
    token_ = text_.substr(start, at_ - start);
  }

  // From an opening parenthesis to behind its closing one; gives the text of both and what lies between.
  std::string parentheses() {
    const size_t start = at_ - 1;
    for (int depth = 0; !done(); next()) {
      if (token_ == "(") depth++;
      if (token_ == ")" && --depth == 0) break;
    }
    std::string inside = text_.substr(start, at_ - start);
    next();
    return inside;
  }

 private:
  static bool is_word(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }
  void skip_line() {
    while (at_ < text_.size() && text_[at_] != '\n') at_++;
  }
  void skip_literal(char quote) {
    for (at_++; at_ < text_.size() && text_[at_] != quote; at_++)
      if (text_[at_] == '\\') at_++;
    if (at_ < text_.size()) at_++;
  }

  const std::string &text_;
  size_t at_ = 0;
  bool line_start_ = true;
  std::string token_;
};

}  // namespace

std::vector<FoundKernel> find_kernels(const std::string &text) {
  std::vector<FoundKernel> found;
  std::vector<bool> braces;  // the open braces: does each belong to `extern "C" {`?
  bool c_linkage = false, is_template = false, after_extern_c = false;
  std::string previous;
  for (Tokens tokens(text); !tokens.done();) {
    const std::string token = tokens.token();
    if (token == "\"C\"" && previous == "extern") c_linkage = after_extern_c = true;
    else if (token == "{") braces.push_back(after_extern_c), c_linkage = is_template = after_extern_c = false;
    else if (token == "}" && !braces.empty()) braces.pop_back(), c_linkage = is_template = false;
    else if (token == ";") c_linkage = is_template = after_extern_c = false;
    else after_extern_c = false;
    if (token == "template") is_template = true;
    previous = token;
    tokens.next();
    if (token != "__global__") continue;

    // Attributes and the type, then the name: the identifier in front of the parameters.
    FoundKernel kernel{"", "()", "(0, 0, 0)"};
    while (!tokens.done() && (tokens.token() != "(" || kernel.name.empty())) {
      kernel.name = tokens.token();
      tokens.next();
      if (tokens.token() != "(") continue;
      if (kernel.name == "__launch_bounds__") kernel.bounds = tokens.parentheses();
      else if (kernel.name == "__cluster_dims__") kernel.cluster = tokens.parentheses();
      else if (kernel.name == "__maxnreg__" || kernel.name == "__attribute__") tokens.parentheses();
      else break;
      kernel.name.clear();
    }
    bool in_block = false;
    for (bool brace : braces) in_block = in_block || brace;
    bool declared_before = false;
    for (const FoundKernel &other : found) declared_before = declared_before || other.name == kernel.name;
    if ((c_linkage || in_block) && !is_template && !declared_before) found.push_back(kernel);
  }
  return found;
}
