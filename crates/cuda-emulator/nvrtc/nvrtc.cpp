// The stand-in for NVRTC: programs are compiled by g++ into shared objects, which go by the name of cubins.
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <spawn.h>
#include <sstream>
#include <string>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "kernels.h"

namespace files = std::filesystem;

enum nvrtcResult : unsigned {
  NVRTC_SUCCESS = 0,
  NVRTC_ERROR_PROGRAM_CREATION_FAILURE = 2,
  NVRTC_ERROR_INVALID_INPUT = 3,
  NVRTC_ERROR_INVALID_PROGRAM = 4,
  NVRTC_ERROR_INVALID_OPTION = 5,
  NVRTC_ERROR_COMPILATION = 6,
  NVRTC_ERROR_BUILTIN_OPERATION_FAILURE = 7,
  NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID = 10,
};

struct Program {
  struct File {
    std::string name, text;
  };
  File source;
  std::vector<File> headers;
  std::string log, object;
};
using nvrtcProgram = Program *;

#define NVRTC_API extern "C" __attribute__((visibility("default")))

namespace {

// The emulator's versions of these headers replace the program's: they are where all PTX lives.
bool is_replaced(const files::path &header) { return header == "ptx.cuh" || header == "hopper.cuh"; }

// A folder of this compilation's own, gone when it is done.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    // mkdtemp puts letters in place of the X's.
    std::string pattern = (files::temp_directory_path() / "ferrograd-emulator-XXXXXX").string();
    if (mkdtemp(pattern.data())) path = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path.empty()) files::remove_all(path, ignored);
  }
  files::path path;
};

// Where this library lies: the headers for kernels and the driver are beside it.
files::path library_folder() {
  Dl_info info;
  dladdr(reinterpret_cast<void *>(&library_folder), &info);
  return files::absolute(info.dli_fname).parent_path();
}

std::string read(const files::path &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const files::path &path, const std::string &text) {
  files::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

// A name for a file inside the folder, whatever the program calls it.
files::path inside(const files::path &folder, const std::string &name) {
  files::path relative = files::path(name).lexically_normal();
  if (relative.is_absolute() || *relative.begin() == "..") relative = relative.filename();
  return folder / relative;
}

// Runs g++ in the folder; what it says goes to the log. -1 if it could not be started.
int compile(const files::path &folder, const std::vector<std::string> &arguments, std::string &log) {
  std::vector<char *> argv;
  for (const std::string &argument : arguments) argv.push_back(const_cast<char *>(argument.c_str()));
  argv.push_back(nullptr);
  const files::path messages = folder / "messages";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawn_file_actions_addopen(&actions, 1, messages.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t child;
  int status = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (status != 0) {
    log += "ferrograd's CUDA emulator needs g++: " + std::string(strerror(status)) + "\n";
    return -1;
  }
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  log += read(messages);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// What g++ made of a text, kept beside this library: a program for another architecture is often the same text. Whoever
// wants it at the same time waits. Without a folder to write to, nothing is kept.
class Kept {
 public:
  explicit Kept(const std::string &what) {
    char name[17];
    snprintf(name, sizeof name, "%016zx", std::hash<std::string>()(what));
    const files::path folder = library_folder() / "objects";
    std::error_code ignored;
    files::create_directories(folder, ignored);
    path_ = folder / name;
    lock_ = open((path_.string() + ".lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (lock_ >= 0) flock(lock_, LOCK_EX);
  }
  Kept(const Kept &) = delete;
  ~Kept() {
    if (lock_ >= 0) close(lock_);
  }
  // Empty if there is none.
  std::string object() const { return read(path_); }
  void keep(const std::string &object) const {
    if (lock_ < 0) return;
    const files::path part = path_.string() + ".part";
    write(part, object);
    std::error_code ignored;
    files::rename(part, path_, ignored);
  }

 private:
  files::path path_;
  int lock_;
};

// The options of NVRTC that mean something to g++.
struct Options {
  std::vector<std::string> preprocessor;
  bool fused_multiply_add = true;
  std::string standard = "-std=gnu++17";

  // False for an architecture that cannot be read.
  bool parse(int count, const char *const *given) {
    for (int i = 0; i < count; i++) {
      std::string option = given[i], value;
      if (option.compare(0, 2, "--") == 0) option.erase(0, 1);
      if (const size_t equals = option.find('='); equals != std::string::npos && option[1] != 'D')
        value = option.substr(equals + 1), option.erase(equals);
      else if ((option == "-D" || option == "-U" || option == "-I" || option == "-define-macro" ||
                option == "-undefine-macro" || option == "-include-path" || option == "-gpu-architecture" ||
                option == "-arch" || option == "-std") && i + 1 < count)
        value = given[++i];
      if (option == "-define-macro" || option == "-D") preprocessor.push_back("-D" + value);
      else if (option == "-undefine-macro" || option == "-U") preprocessor.push_back("-U" + value);
      else if (option == "-include-path" || option == "-I") preprocessor.push_back("-I" + value);
      else if (option.compare(0, 2, "-D") == 0 || option.compare(0, 2, "-U") == 0 || option.compare(0, 2, "-I") == 0)
        preprocessor.push_back(option);
      else if (option == "-fmad") fused_multiply_add = value != "false";
      else if (option == "-std") standard = "-std=gnu++" + value.substr(value.find_last_of('+') + 1);
      else if (option == "-gpu-architecture" || option == "-arch") {
        if (!architecture(value)) return false;
      }
    }
    return true;
  }

 private:
  // sm_90a or compute_90a: 900, and a macro for the `a`.
  bool architecture(const std::string &name) {
    const size_t digits = name.find('_');
    if (digits == std::string::npos) return false;
    char *end;
    const long number = strtol(name.c_str() + digits + 1, &end, 10);
    preprocessor.push_back("-D__CUDA_ARCH__=" + std::to_string(10 * number));
    if (*end == 'a') preprocessor.push_back("-D__CUDA_ARCH_FEAT_SM" + std::to_string(number) + "_ALL");
    return number > 0;
  }
};

std::vector<std::string> machine_options() {
#if defined(__x86_64__)
  // Hardware fma: without it every fmaf would be a call.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {"-mavx2", "-mfma", "-mf16c"};
#endif
  return {};
}

nvrtcResult build(Program &program, const Options &options) {
  TemporaryFolder folder;
  if (folder.path.empty()) return NVRTC_ERROR_BUILTIN_OPERATION_FAILURE;
  const files::path library = library_folder(), device = library / "device";
  const files::path source = inside(folder.path, program.source.name);
  for (const Program::File &header : program.headers)
    if (!is_replaced(files::path(header.name).filename())) write(inside(folder.path, header.name), header.text);
  write(source, program.source.text);

  // First the preprocessor alone, without the shim: the CUDA keywords remain, and kernels can be found by them.
  std::vector<std::string> preprocess = {"g++", "-E", "-x", "c++", options.standard, "-nostdinc", "-nostdinc++",
                                         "-D__CUDACC__", "-D__CUDACC_RTC__", "-I."};
  preprocess.insert(preprocess.end(), options.preprocessor.begin(), options.preprocessor.end());
  preprocess.insert(preprocess.end(), {"-I" + device.string(), source.lexically_relative(folder.path).string(), "-o",
                                       "preprocessed.cpp"});
  if (int status = compile(folder.path, preprocess, program.log))
    return status < 0 ? NVRTC_ERROR_BUILTIN_OPERATION_FAILURE : NVRTC_ERROR_COMPILATION;

  std::string text = read(folder.path / "preprocessed.cpp");
  const std::vector<FoundKernel> kernels = find_kernels(text);
  for (const FoundKernel &kernel : kernels)
    text += "\nEMULATOR_KERNEL(" + kernel.name + ", " + kernel.bounds + ", " + kernel.cluster + ")";
  write(folder.path / "preprocessed.cpp", text + "\n");

  std::vector<std::string> translate = {
      "g++", "-x", "c++", options.standard, "-O1", "-w", "-fPIC", "-shared", "-nostdlib", "-nostdinc", "-nostdinc++",
      "-fno-exceptions", "-fno-rtti", "-fno-asynchronous-unwind-tables", "-fno-math-errno", "-fno-trapping-math",
      // As CUDA's compiler: vectors are read through pointers to their elements, and integers wrap.
      "-fno-strict-aliasing", "-fwrapv",
      options.fused_multiply_add ? "-ffp-contract=fast" : "-ffp-contract=off",
      // Each variable in a section of its own, for the linker script; names of other modules never take precedence.
      "-fdata-sections", "-fno-gnu-unique", "-fno-semantic-interposition", "-Wl,-Bsymbolic",
      "-Wl,-T," + (device / "shared.ld").string(), "-include", (device / "shim.h").string()};
  for (const std::string &option : machine_options()) translate.push_back(option);
  translate.insert(translate.end(), {"preprocessed.cpp", "-Wl,--no-as-needed", "-L" + library.string(),
                                     "-l:libcuda.so.1", "-o", "object"});
  std::string made_of = text;
  for (const std::string &argument : translate) made_of += '\0' + argument;
  const Kept kept(made_of);
  program.object = kept.object();
  if (!program.object.empty()) return NVRTC_SUCCESS;
  if (int status = compile(folder.path, translate, program.log))
    return status < 0 ? NVRTC_ERROR_BUILTIN_OPERATION_FAILURE : NVRTC_ERROR_COMPILATION;
  program.object = read(folder.path / "object");
  kept.keep(program.object);
  return NVRTC_SUCCESS;
}

nvrtcResult give(const std::string &text, char *out, size_t size) {
  memcpy(out, text.c_str(), size);
  return NVRTC_SUCCESS;
}

}  // namespace

NVRTC_API const char *nvrtcGetErrorString(nvrtcResult result) {
  switch (result) {
    case NVRTC_SUCCESS: return "NVRTC_SUCCESS";
    case NVRTC_ERROR_PROGRAM_CREATION_FAILURE: return "NVRTC_ERROR_PROGRAM_CREATION_FAILURE";
    case NVRTC_ERROR_INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
    case NVRTC_ERROR_INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
    case NVRTC_ERROR_INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
    case NVRTC_ERROR_COMPILATION: return "NVRTC_ERROR_COMPILATION";
    case NVRTC_ERROR_BUILTIN_OPERATION_FAILURE: return "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE";
    case NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID: return "NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID";
  }
  return "NVRTC_ERROR unknown";
}

// The minor version stands for the emulator's sources, so that a cache that is keyed by version keeps nothing that was
// made by another emulator or by a real compiler.
NVRTC_API nvrtcResult nvrtcVersion(int *major, int *minor) {
  *major = 12;
  *minor = FERROGRAD_EMULATOR_VERSION;
  return NVRTC_SUCCESS;
}

NVRTC_API nvrtcResult nvrtcGetNumSupportedArchs(int *count) {
  *count = 4;
  return NVRTC_SUCCESS;
}
NVRTC_API nvrtcResult nvrtcGetSupportedArchs(int *architectures) {
  for (int architecture : {80, 90, 100, 120}) *architectures++ = architecture;
  return NVRTC_SUCCESS;
}

NVRTC_API nvrtcResult nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *name, int header_count,
                                         const char *const *headers, const char *const *header_names) {
  if (!program || !source || header_count < 0) return NVRTC_ERROR_INVALID_INPUT;
  *program = new Program{{name && *name ? name : "default_program", source}, {}, {}, {}};
  for (int i = 0; i < header_count; i++) (*program)->headers.push_back({header_names[i], headers[i]});
  return NVRTC_SUCCESS;
}

NVRTC_API nvrtcResult nvrtcDestroyProgram(nvrtcProgram *program) {
  if (!program || !*program) return NVRTC_ERROR_INVALID_PROGRAM;
  delete *program;
  *program = nullptr;
  return NVRTC_SUCCESS;
}

NVRTC_API nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int option_count, const char *const *options) {
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  program->log.clear();
  program->object.clear();
  Options parsed;
  if (!parsed.parse(option_count, options)) {
    program->log = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
    return NVRTC_ERROR_INVALID_OPTION;
  }
  return build(*program, parsed);
}

NVRTC_API nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t *size) {
  if (!program) return NVRTC_ERROR_INVALID_PROGRAM;
  *size = program->log.size() + 1;
  return NVRTC_SUCCESS;
}
NVRTC_API nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char *log) {
  return program ? give(program->log, log, program->log.size() + 1) : NVRTC_ERROR_INVALID_PROGRAM;
}

NVRTC_API nvrtcResult nvrtcGetCUBINSize(nvrtcProgram program, size_t *size) {
  if (!program || program->object.empty()) return NVRTC_ERROR_INVALID_PROGRAM;
  *size = program->object.size();
  return NVRTC_SUCCESS;
}
NVRTC_API nvrtcResult nvrtcGetCUBIN(nvrtcProgram program, char *object) {
  return program ? give(program->object, object, program->object.size()) : NVRTC_ERROR_INVALID_PROGRAM;
}

// There is no PTX, and no templates by name.
NVRTC_API nvrtcResult nvrtcGetPTXSize(nvrtcProgram, size_t *) { return NVRTC_ERROR_INVALID_PROGRAM; }
NVRTC_API nvrtcResult nvrtcGetPTX(nvrtcProgram, char *) { return NVRTC_ERROR_INVALID_PROGRAM; }
NVRTC_API nvrtcResult nvrtcAddNameExpression(nvrtcProgram, const char *) {
  return NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID;
}
