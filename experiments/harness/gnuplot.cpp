#include "experiments/harness/gnuplot.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "nn/files/atomic.h"
#include "tensor/error.h"

extern char** environ;

namespace graft {
namespace {

namespace fs = std::filesystem;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size())
    text.replace(at, from.size(), to);
}

std::string escaped(std::string_view text) {
  std::string out(text);
  replace_all(out, "&", "&amp;");
  replace_all(out, "<", "&lt;");
  return out;
}

// A file that is gone when the work is done, whichever way it ends.
struct Scratch {
  fs::path path;
  explicit Scratch(fs::path p) : path(std::move(p)) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

// Returns the exit status; 127 when there is no such program. Files are relative to `folder`.
int spawn(const fs::path& folder, const std::string& script, const fs::path& out,
          const fs::path& errors) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  constexpr int kNew = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), kNew, 0666);
  posix_spawn_file_actions_addopen(&actions, 2, errors.c_str(), kNew, 0666);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  std::string program = "gnuplot", plain = "-d";  // -d: no settings of the user's own
  std::string file = script;
  char* arguments[] = {program.data(), plain.data(), file.data(), nullptr};
  pid_t child = 0;
  int refused = posix_spawnp(&child, "gnuplot", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (refused == ENOENT) return 127;
  check(refused == 0, "plot: cannot run gnuplot: {}", std::strerror(refused));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    check(errno == EINTR, "plot: waiting for gnuplot: {}", std::strerror(errno));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Black becomes the colour of the text around; the background can be switched off by its class.
std::string adapt(std::string svg, const std::string& title) {
  replace_all(svg, " color=\"black\"", "");
  replace_all(svg, "stroke='black'", "stroke='currentColor'");
  replace_all(svg, "fill=\"black\"", "fill=\"currentColor\"");
  replace_all(svg, "fill = 'black'", "fill='currentColor'");
  replace_all(svg, "font-family=\"Helvetica\"",
              "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\"");
  replace_all(svg, "<title>Gnuplot</title>", "<title>" + escaped(title) + "</title>");
  if (auto at = svg.find("<rect x=\"0\" y=\"0\""); at != svg.npos)
    svg.insert(at + 5, " class=\"paper\"");
  return svg;
}

}  // namespace

std::string gnuplot_string(std::string_view text) {
  std::string out = "'";
  for (char c : text) {
    if (c == '\'') out += '\'';
    out += c == '\n' || c == '\r' ? ' ' : c;
  }
  return out + "'";
}

std::string tick_label(double v, bool powers) {
  if (v == 0 || (std::abs(v) >= (powers ? 1 : 1e-3) && std::abs(v) < 1e5))
    return fmt::format("{:.4g}", v);
  static const char* const kSuperscript[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  int exponent = static_cast<int>(std::floor(std::log10(std::abs(v)) + 1e-9));
  std::string factor = fmt::format("{:.3g}", v / std::pow(10.0, exponent));
  std::string power = exponent < 0 ? "10⁻" : "10";
  for (char c : std::to_string(std::abs(exponent))) power += kSuperscript[c - '0'];
  return factor == "1" ? power : factor + "·" + power;
}

std::string run_gnuplot(const fs::path& stem, const std::string& title, int width, int height,
                        const std::string& script, const std::string& data) {
  fs::path folder = fs::absolute(stem).parent_path();
  std::string name = stem.filename().string();
  fs::create_directories(folder);
  std::string head = fmt::format(
      "# Draws {0}.svg from {0}.dat; to draw it again: gnuplot {0}.gp > {0}.svg\n"
      "set encoding utf8\n"
      "set terminal svg size {1},{2} dynamic noenhanced linewidth 1.2 font 'Helvetica,14' "
      "background '#ffffff'\n"
      "data = {3}\n",
      name, width, height, gnuplot_string(name + ".dat"));
  write_file_atomically(folder / (name + ".dat"), data);
  write_file_atomically(folder / (name + ".gp"), head + script);
  std::string unique = fmt::format(".{}.{}", name, ::getpid());
  Scratch svg(folder / (unique + ".svg")), errors(folder / (unique + ".txt"));
  int status = spawn(folder, name + ".gp", svg.path, errors.path);
  check(status != 127, "plot: gnuplot is not installed; Debian's package is gnuplot-nox");
  check(status == 0, "plot: gnuplot {}.gp ended with status {}: {}", name, status,
        read_file(errors.path));
  std::string drawn = adapt(read_file(svg.path), title);
  check(drawn.find("</svg>") != drawn.npos, "plot: gnuplot {}.gp drew nothing: {}", name,
        read_file(errors.path));
  write_file_atomically(folder / (name + ".svg"), drawn);
  return drawn;
}

}  // namespace graft
