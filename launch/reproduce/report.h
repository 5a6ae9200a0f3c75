// The report of an experiment as markdown: tables, verdicts, pictures, what was tuned, what is missing.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "launch/reproduce/claims.h"

namespace tessera {

struct ReportInput {
  const ExperimentSpec& spec;
  const ProfileSpec& profile;
  const std::vector<Claim>& claims;
  std::vector<UnitStatus> units;
  std::map<std::string, GridPoint> tuned;
};

/// `pictures`: what to link, by cover.
std::string report_text(const ReportInput& input,
                        const std::map<std::string, std::vector<std::string>>& pictures,
                        const std::string& picture_folder);

/// Draws the pictures and writes the report; it says itself what it lacks.
Status write_report(const ReportInput& input, const std::string& file, const std::string& pictures);

}  // namespace tessera
